"""A small model server, to be broken."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from corewrite.relevance import cold_start
from corewrite.relevance.backends.pairs import document_texts


class ModelServer:
    """Speaks the Open Inference Protocol, with the bundled model's scores; `fault` is what is wrong now."""

    def __init__(self, catalogue, queries):
        self.fault = ""
        self.asked = 0
        rows = {text: row for row, text in enumerate(document_texts(catalogue, np.arange(len(catalogue))))}
        model, lock = cold_start(catalogue).bind(catalogue), threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                outer.asked += 1
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                texts, documents = (tensor["data"] for tensor in asked["inputs"])
                with lock:
                    scores = [
                        float(model.score([t], np.array([[rows[d]]]))[0, 0]) for t, d in zip(texts, documents, strict=True)
                    ]
                if outer.fault == "slow":
                    time.sleep(1)
                status = 503 if outer.fault == "down" else 200
                if outer.fault == "NaN" or (outer.fault == "NaN for rewrites" and any(t not in queries for t in texts)):
                    scores = [float("nan")] * len(scores)
                tensor = {"name": "score", "shape": [len(scores)], "datatype": "FP64", "data": scores}
                body = json.dumps({"model_name": "m", "model_version": "1", "outputs": [tensor]}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # the client does not wait for a slow answer

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
