"""From document ids to rows: a sorted table of hashes, small enough for memory and as good on disk."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain.documents import RepeatedIds

IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]

_CHUNK = 65_536
"""Ids looked at together."""


def hash_ids(ids: Sequence[str]) -> HashArray:
    """64-bit hash of each id (BLAKE2b), uint64 [n]; the same on every machine."""
    digests = [hashlib.blake2b(i.encode("utf-8", "surrogatepass"), digest_size=8).digest() for i in ids]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64, copy=False)


@dataclass(frozen=True, eq=False)
class IdIndex:
    """Rows by document id.

    An equal hash only nominates a row: the id that stands there decides.

    Attributes:
        hashes: Of all ids, ascending, uint64 [documents].
        rows: The document of each hash, ascending where hashes are equal, int64 [documents].
        load_ids: Ids at some rows.
        load_hash: What made `hashes`.
    """

    hashes: HashArray
    rows: IntArray
    load_ids: Callable[[IntArray], list[str]]
    load_hash: Callable[[Sequence[str]], HashArray] = hash_ids

    def find(self, ids: Sequence[str]) -> IntArray:
        """Rows of `ids`, int64 [n]; -1 where one is unknown."""
        out = np.full(len(ids), -1, np.int64)
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            wanted = self.load_hash(part)
            first = np.searchsorted(self.hashes, wanted, "left")
            count = np.searchsorted(self.hashes, wanted, "right") - first
            of = np.repeat(np.arange(len(part)), count)
            nominated = self.rows[first[of] + np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)]
            for place, row, found in zip(of.tolist(), nominated.tolist(), self.load_ids(nominated), strict=True):
                if found == part[place]:
                    out[start + place] = row
        return out

    def repeated(self) -> RepeatedIds | None:
        """Documents that have the id of an earlier one."""
        return RepeatedIds.of(self._repeats())

    def _repeats(self) -> Iterator[tuple[str, int, int]]:
        """Id, row of the first document that has it, and row, of each document that is not the first; by hash, so that no more
        than the ids of one hash are held."""
        equal = self.hashes[1:] == self.hashes[:-1]
        shared = np.zeros(len(self.hashes), np.bool_)
        shared[1:] |= equal
        shared[:-1] |= equal
        suspects = np.flatnonzero(shared)
        first: dict[str, int] = {}
        last = None
        for start in range(0, len(suspects), _CHUNK):
            part = suspects[start : start + _CHUNK]
            rows = self.rows[part]
            for hash, row, doc_id in zip(self.hashes[part].tolist(), rows.tolist(), self.load_ids(rows), strict=True):
                if hash != last:
                    first, last = {}, hash
                if first.setdefault(doc_id, row) != row:
                    yield doc_id, first[doc_id], row


def sorted_hashes(hashes: HashArray) -> tuple[HashArray, IntArray]:
    """`hashes` of the documents in the order of their rows, as `IdIndex` wants them, with their rows."""
    rows = np.argsort(hashes, kind="stable").astype(np.int64, copy=False)
    return hashes[rows], rows
