"""What runs in the rewriter's process: one policy, asked in batches over a socket, one JSON document a line.

The process is a clone of one that has imported everything already (`forkserver`), so that a policy is up in the time it takes
to read its weights. It ends when the socket closes, so never outlives the server; a terminal's or a service manager's signals
to the whole group are left to the server, which has requests to answer first.
"""

import json
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from corewrite.domain import Query, query_from_json
from corewrite.rewriter import MAX_NEW_TOKENS, Rewriter, beam, greedy, load_rewriter


def work(connection: socket.socket, folder: Path, max_new_tokens: int | None, threads: int) -> None:
    """Load a policy, say `ready` with its template, and answer until the other end hangs up.

    Args:
        connection: To the server.
        folder: The policy's artifact.
        max_new_tokens: Length limit of a rewrite, tokens; None: that of training and gate.
        threads: Of the arithmetic.
    """
    limit = max_new_tokens or MAX_NEW_TOKENS
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    torch.set_num_threads(threads)
    # Once the server is gone, or has given up on a start that took too long, no one reads the answer.
    with suppress(BrokenPipeError, ConnectionResetError), connection, connection.makefile("rwb") as stream:

        def say(value: Any) -> None:
            stream.write(json.dumps(value).encode() + b"\n")
            stream.flush()

        try:
            rewriter = load_rewriter(folder)
        except Exception as error:  # whatever is wrong with a folder, the server is to hear it in words
            say({"failed": f"{type(error).__name__}: {error}"[:500]})
            return
        say({"ready": rewriter.template.config.to_json()})
        for line in stream:
            asked = json.loads(line)
            queries = [query_from_json(q) for q in asked["queries"]]
            say({"id": asked["id"], "rewrites": rewrites(rewriter, queries, asked["n"], limit)})


def rewrites(rewriter: Rewriter, queries: Sequence[Query], n: int, max_new_tokens: int) -> list[list[str]]:
    """At most `n` distinct rewrites of each query, best first; none where the query is too long or nothing usable came out."""
    fits = rewriter.template.fitting(queries)
    asked = [queries[i] for i in fits]
    out: list[list[str]] = [[] for _ in queries]
    if n == 1:
        found = [[r.text] for r in greedy(rewriter, asked, max_new_tokens=max_new_tokens)]
    else:
        found = [[r.text for r in row] for row in beam(rewriter, asked, n, max_new_tokens=max_new_tokens)]
    for i, texts in zip(fits, found, strict=True):
        out[i] = [text for text in dict.fromkeys(texts) if text]
    return out
