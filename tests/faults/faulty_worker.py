"""The rewriter's process with faults: as the real one until the file that COREWRITE_FAULTS names says otherwise.

Imported in the process itself, so that what a fault sends goes over the real socket and through the real parser.
"""

import json
import os
import time
from itertools import count
from pathlib import Path

from corewrite.serving import worker

LEAST_SECONDS = 0.015  # of a batch of the demo's decoder; the tiny one here would still be fast at ten times its own
GARBAGE = [
    ["a\x00b\x1b[31mred"], ["two\nlines"], ["\u202etxet"], ["\ud83d"], [""], ["   "], ["x" * 10_000], ["word " * 2_000],
    ["a"] * 1_000, [1], [None], [float("nan")], "a", 7, None, {"text": "a"}, [["a"]], ["a\u0085b"], ["\ufeffa\u2066b"],
]  # fmt: skip
LIES = [
    b"\xff\xfe\x00\n", b"not json\n", b"[]\n", b"null\n", b"{}\n", b"[" * 100_000 + b"\n", b"x" * 3_000_000 + b"\n",
    b'{"id": 999999, "rewrites": [["a"]]}\n', b'{"id": NaN, "rewrites": NaN}\n',
]  # fmt: skip
_turn = count()


def fault():
    """What is wrong now; empty where nothing is."""
    try:
        return json.loads(Path(os.environ["COREWRITE_FAULTS"]).read_text()).get("rewriter", "")
    except (OSError, ValueError):
        return ""


def rewrites(rewriter, queries, n, max_new_tokens, really=worker.rewrites):
    began = time.monotonic()
    found = really(rewriter, queries, n, max_new_tokens)
    if fault() == "slow":
        time.sleep(9 * max(LEAST_SECONDS, time.monotonic() - began))
    if fault() == "garbage":
        return [GARBAGE[next(_turn) % len(GARBAGE)] for _ in queries]
    return found


class Stream:
    """A socket's file whose answers may be lies; the greeting, written first, is true."""

    def __init__(self, stream):
        self._stream, self._greeted = stream, False

    def write(self, data):
        lying, self._greeted = self._greeted and fault() == "lies", True
        return self._stream.write(LIES[next(_turn) % len(LIES)] if lying else data)

    def flush(self):
        self._stream.flush()

    def __iter__(self):
        return iter(self._stream)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()


class Connection:
    def __init__(self, connection):
        self._connection = connection

    def makefile(self, mode):
        return Stream(self._connection.makefile(mode))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()


def work(connection, folder, max_new_tokens, threads):
    worker.rewrites = rewrites
    # A lie must not repeat from one process to the next: each starts with another.
    for _ in range(os.getpid() % 97):
        next(_turn)
    worker.work(Connection(connection), folder, max_new_tokens, threads)
