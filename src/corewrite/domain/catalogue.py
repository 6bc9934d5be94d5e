"""The documents, column by column; a document is addressed by its row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from corewrite.domain.hashing import sha256_chunks, sha256_json

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """All documents of a search engine at one time.

    Attributes:
        ids: Document ids, unique, shape [documents].
        titles: Title of each document.
        texts: Further text of each document (tags, creator, transcript), may be empty strings.
        visual: Picture embedding, float32 [documents, dimensions]; zero columns where there is no picture.
        seconds: Duration, float64 [documents].
        prior: Query-independent quality in (0, 1], float64 [documents] (popularity, freshness, ...).
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    visual: npt.NDArray[np.float32]
    seconds: FloatArray
    prior: FloatArray

    def __post_init__(self) -> None:
        n = len(self.ids)
        for name in ("titles", "texts", "visual", "seconds", "prior"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"catalogue column {name!r} has {len(getattr(self, name))} rows, ids has {n}")
        if len(set(self.ids)) != n:
            raise ValueError("catalogue ids are not unique")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row by document id."""
        return {doc_id: row for row, doc_id in enumerate(self.ids)}

    def rows(self, ids: Sequence[str]) -> IntArray:
        """Rows of `ids`.

        Raises:
            KeyError: an id is not in the catalogue.
        """
        return np.array([self.row_of[doc_id] for doc_id in ids], np.int64)

    @cached_property
    def content_hash(self) -> str:
        """Hash over every column."""
        return sha256_chunks(
            [
                sha256_json([self.ids, self.titles, self.texts]).encode(),
                np.ascontiguousarray(self.visual).tobytes(),
                self.seconds.tobytes(),
                self.prior.tobytes(),
            ]
        )
