"""Scores computed once: a cache keyed by model hash, text and document."""

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from corewrite.relevance.protocol import RelevanceScorer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class CachedScorer:
    """A caching `RelevanceScorer`: the wrapped one scores only pairs that are not in the cache.

    Meant for models that are costly to ask; the bundled one keeps per-word tables of its own. NaN (a score that could not be
    computed) is passed on and asked again next time. The cache is emptied when the model behind it changes its hash. Several
    threads may score at a time.
    """

    def __init__(self, scorer: RelevanceScorer, capacity: int = 5_000_000) -> None:
        """Wrap `scorer`, keeping at most about `capacity` scores (the texts asked longest ago go first)."""
        self._scorer = scorer
        self._known: LRUCache[str, dict[int, float]] = LRUCache(capacity, len)  # scores by text and row
        self._lock = threading.Lock()
        self._hash = scorer.model_hash
        self.hits = 0
        self.misses = 0

    @property
    def model_hash(self) -> str:
        """Hash of the model behind the cache."""
        return self._scorer.model_hash

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`."""
        out = np.zeros(rows.shape)
        missing = np.full(rows.shape, -1, np.int64)
        with self._lock:
            self._look_up(texts, rows, out, missing)
        asked = np.flatnonzero((missing >= 0).any(1)).tolist()
        if len(asked):
            fresh = self._scorer.score([texts[i] for i in asked], missing[asked])
            with self._lock:
                for i, scores in zip(asked, fresh, strict=True):
                    columns = np.flatnonzero(missing[i] >= 0)
                    out[i, columns] = scores[columns]
                    self._keep(texts[i], missing[i, columns], scores[columns])
        return out

    def _look_up(self, texts: Sequence[str], rows: IntArray, out: FloatArray, missing: IntArray) -> None:
        """Fill `out` with the known scores, `missing` with the rows of the others."""
        if self._hash != self._scorer.model_hash:
            self._known.clear()
            self._hash = self._scorer.model_hash
        for i, text in enumerate(texts):
            known = self._known.get(text, {})
            for j, row in enumerate(rows[i].tolist()):
                if row < 0:
                    continue
                if row in known:
                    out[i, j] = known[row]
                    self.hits += 1
                else:
                    missing[i, j] = row
                    self.misses += 1

    def _keep(self, text: str, rows: IntArray, scores: FloatArray) -> None:
        """Remember scores of a text; a text without any, or with more than the cache holds, is not kept."""
        new = {row: score for row, score in zip(rows.tolist(), scores.tolist(), strict=True) if not np.isnan(score)}
        known = {**new, **self._known.pop(text, {})}
        if 0 < len(known) <= self._known.maxsize:
            self._known[text] = known
