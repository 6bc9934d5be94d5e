"""Scores computed once: a cache keyed by model hash, text and document."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from corewrite.relevance.protocol import RelevanceScorer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class CachedScorer:
    """A scorer that asks the one behind it only for pairs it has not seen (a `RelevanceScorer`).

    Meant for models that are dear to ask; the bundled one keeps per-word tables of its own. NaN (a score that could not be
    computed) is passed on and asked again next time. The cache is emptied when the model behind it changes its hash.
    """

    def __init__(self, scorer: RelevanceScorer, capacity: int = 5_000_000) -> None:
        """Wrap `scorer`, keeping at most about `capacity` scores (the texts asked longest ago go first)."""
        self._scorer = scorer
        self._capacity = capacity
        self._known: dict[str, dict[int, float]] = {}
        self._size = 0
        self._hash = scorer.model_hash
        self.hits = 0
        self.misses = 0

    @property
    def model_hash(self) -> str:
        """Hash of the model behind the cache."""
        return self._scorer.model_hash

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`."""
        if self._hash != self._scorer.model_hash:
            self._known, self._size, self._hash = {}, 0, self._scorer.model_hash
        out = np.zeros(rows.shape)
        missing = np.full(rows.shape, -1, np.int64)
        for i, text in enumerate(texts):
            known = self._known.pop(text, {})
            if known:
                self._known[text] = known  # the last place: asked just now
            for j, row in enumerate(rows[i].tolist()):
                if row < 0:
                    continue
                if row in known:
                    out[i, j] = known[row]
                    self.hits += 1
                else:
                    missing[i, j] = row
                    self.misses += 1
        asked = np.flatnonzero((missing >= 0).any(1)).tolist()
        if len(asked):
            fresh = self._scorer.score([texts[i] for i in asked], missing[asked])
            for i, scores in zip(asked, fresh, strict=True):
                known = self._known.get(texts[i], {})
                for j in np.flatnonzero(missing[i] >= 0).tolist():
                    out[i, j] = scores[j]
                    if not np.isnan(scores[j]) and int(missing[i, j]) not in known:
                        known[int(missing[i, j])] = float(scores[j])
                        self._size += 1
                if known:  # a text without any score would never go: only scores count towards the capacity
                    self._known[texts[i]] = known
        while self._size > self._capacity:
            longest_ago = next(iter(self._known))
            self._size -= len(self._known.pop(longest_ago))
        return out
