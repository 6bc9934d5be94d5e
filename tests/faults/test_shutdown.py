"""SIGTERM with requests in flight."""

import json
import os
import signal
import socket
import time

IN_FLIGHT = 30


def test_requests_in_flight_are_answered(platform, queries, kit, note, tmp_path):
    server = kit.start(platform, tmp_path, log={"folder": str(tmp_path / "log"), "counterfactual_share": 1})
    try:
        body = [json.dumps({"query": queries[i % len(queries)], "client_id": f"c{i}"}).encode() for i in range(IN_FLIGHT)]
        head = "POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
        sockets = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in body]
        # Half of each: the server waits for the rest of all of them when the signal comes.
        for one, data in zip(sockets, body, strict=True):
            one.sendall(head.format(len(data)).encode() + data[:5])
        time.sleep(1)  # they are the server's by now, and not only the kernel's
        os.kill(server.process.pid, signal.SIGTERM)
        began = time.monotonic()
        time.sleep(0.5)
        for one, data in zip(sockets, body, strict=True):
            one.sendall(data[5:])
        answers = [received(one) for one in sockets]
        assert all(a.startswith(b"HTTP/1.1 200") for a in answers), answers[:2]
        found = [json.loads(a.partition(b"\r\n\r\n")[2]) for a in answers]
        assert all(len(f["results"]) == 10 for f in found)
        assert server.process.wait(30) == 0
        ended = time.monotonic() - began
        # What was answered was written down: nothing is lost by the end.
        lines = [json.loads(li) for file in (tmp_path / "log").iterdir() for li in file.read_text().splitlines()]
        assert {f["query_id"] for f in found} == {li["query_id"] for li in lines}
        kit.wait(lambda: not alive(server.process.pid), 10, "the rewriter's processes")
        note("SIGTERM with requests in flight", [Told(f) for f in found], recovery_s=ended)
    finally:
        server.kill()


class Told:
    """As the load's answers, for the table."""

    def __init__(self, body):
        self.body, self.status, self.seconds = body, 200, 0.0
        self.neutral = "ok" not in body["signal_status"].values()


def received(one):
    """A whole response."""
    data = b""
    while part := one.recv(2**16):
        data += part
        head, found, body = data.partition(b"\r\n\r\n")
        length = [h.split(b":")[1] for h in head.split(b"\r\n") if h.lower().startswith(b"content-length")]
        if found and length and len(body) >= int(length[0]):
            return data
    return data


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
