"""Refusing searches at the price of reading them, while as many as the ranking can bear are in flight.

The usual way to an answer, through h11, ASGI and the application, costs some 0.2 ms: at twenty times the load that a server can
bear, refusing would leave no time for answering. So a connection asks here first. Only what is beyond doubt one whole search is
answered here; all else goes the usual way, where it is refused too if need be.
"""

import re
import time

from prometheus_client import Counter

from corewrite.serving.admission import Admission
from corewrite.serving.problems import problem

SEARCH_PATHS = ("/v1/search", "/v1/explain")
"""Calls that wait for the ranking."""
FULL = problem(429, "searches would wait for too long", headers={"Retry-After": "1"})
"""What a search is answered that is not let in."""
_BEGINS = tuple(f"POST {path} HTTP/1.1\r\n".encode() for path in SEARCH_PATHS)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n")
_NOT_HERE = re.compile(rb"transfer-encoding|expect:|upgrade|close|\r(?!\n)|(?<!\r)\n|[^\t\r\n -~]")


def is_one_search(data: bytes) -> bool:
    """Whether these bytes are one whole request for a search, strictly read, after which the connection stays open."""
    end = data.find(b"\r\n\r\n")
    if end < 0 or not data.startswith(_BEGINS):
        return False
    head = data[: end + 2].lower()
    if head.count(b"content-length") != 1 or _NOT_HERE.search(head):
        return False
    length = _LENGTH.search(head)
    return length is not None and len(data) == end + 4 + int(length[1])


class Shedding:
    """Answers searches that would not be let in.

    Args:
        admission: Who lets in.
        requests: Counts them, by route and status.
    """

    def __init__(self, admission: Admission, requests: Counter) -> None:
        self._admission, self._requests = admission, requests

    def refuses(self, data: bytes) -> bool:
        """Whether what an idle connection received is a search that is to be answered `answer`; then it is counted."""
        if not self._admission.is_full or not is_one_search(data) or not self._admission.refuses(time.monotonic()):
            return False
        self._requests.labels(data.split(b" ", 2)[1].decode(), "429").inc()
        return True


def answer(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The whole of `FULL` as it is sent, with headers that every answer has."""
    lines = [b"HTTP/1.1 429 Too Many Requests", *(b"%s: %s" % header for header in [*headers, *FULL.raw_headers])]
    return b"\r\n".join([*lines, b"", bytes(FULL.body)])
