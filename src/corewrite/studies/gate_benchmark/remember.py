"""Caches of the gate benchmark: candidates differ in few of their lists, so most values are known already."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from corewrite.domain import Documents, Query
from corewrite.relevance import TreeJudge

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Rewrites = Sequence[str | None]
"""Of every search, in order; None: no rewriter."""

_REMEMBERED = 7


class Remembered:
    """Values by search of whole sets of rewrites: of a new set only what differs from the nearest known one is computed."""

    def __init__(self, compute: Callable[[Sequence[int], Rewrites], npt.NDArray[Any]]) -> None:
        """Compute with `compute`, from some searches' places and rewrites."""
        self._compute = compute
        self._known: list[tuple[Rewrites, npt.NDArray[Any]]] = []

    def __call__(self, rewrites: Rewrites) -> npt.NDArray[Any]:
        """The values of all searches."""
        if not self._known:
            values = self._compute(range(len(rewrites)), rewrites)
        else:
            differing = [_differing(known, rewrites) for known, _ in self._known]
            nearest = min(range(len(differing)), key=lambda k: len(differing[k]))
            base, new = self._known.pop(nearest), differing[nearest]
            self._known.append(base)  # what is often near stays, what is not is forgotten
            if not new:
                return base[1]
            values = base[1].copy()
            values[new] = self._compute(new, [rewrites[i] for i in new])
        self._known = [*self._known[-_REMEMBERED:], (rewrites, values)]
        return values


def _differing(known: Rewrites, rewrites: Rewrites) -> list[int]:
    return [i for i, (a, b) in enumerate(zip(known, rewrites, strict=True)) if a != b]


class RememberingJudge(TreeJudge):
    """A judge that grades a (query, document) once: candidates differ in few of the documents they show."""

    def __init__(self, documents: Documents) -> None:
        super().__init__(documents)
        self._grades: dict[str, dict[int, float]] = {}

    def grade(self, queries: Sequence[Query], rows: IntArray) -> FloatArray:
        """See `TreeJudge.grade`."""
        known = [self._grades.setdefault(q.key, {}) for q in queries]
        pairs = list(zip(known, rows.tolist(), strict=True))
        missing = [[r for r in dict.fromkeys(row) if r >= 0 and r not in k] for k, row in pairs]
        count = np.array(list(map(len, missing)), np.int64)
        for n in np.unique(count[count > 0]).tolist():
            some = np.flatnonzero(count == n).tolist()
            asked = np.array([missing[i] for i in some], np.int64)
            for i, values in zip(some, super().grade([queries[i] for i in some], asked).tolist(), strict=True):
                known[i].update(zip(missing[i], values, strict=True))
        return np.array([[k[r] if r >= 0 else 0.0 for r in row] for k, row in pairs])
