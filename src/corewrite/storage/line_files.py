"""Reading files of lines, plain or gzipped, a bounded line at a time."""

import gzip
from collections.abc import Iterator
from pathlib import Path


def bounded_lines(path: Path, limit: int) -> Iterator[bytes]:
    """The lines of a file, whichever way it is kept, with their ends.

    A small gzip file can hold a line larger than memory: of one longer than `limit` bytes the first `limit` + 1 are given, and
    the rest is passed over when the next line is asked for.

    Raises:
        OSError, EOFError, zlib.error: it cannot be read or unpacked.
    """
    with path.open("rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if zipped else path.open("rb") as source:
        while line := source.readline(limit + 1):
            yield line
            while line and not line.endswith(b"\n"):
                line = source.readline(limit)
