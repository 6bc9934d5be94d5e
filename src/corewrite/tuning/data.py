"""Requests to tune a stage on: candidates, grades, signals under the query and under every kind of rewrite."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

CHAMPION = "champion"
"""The rewriter to gain by; every other kind of rewrite is taken as broken."""


@dataclass(frozen=True, eq=False)
class TuningRequests:
    """Logged or simulated requests with the signals of their candidates.

    Attributes:
        group: User or conversation of each request, [requests].
        relevance: Graded relevance, at least 0, float64 [requests, documents].
        valid: Which documents are there, bool [requests, documents]. Equal scores rank in the order of the columns.
        under_query: Each signal of the stage under the query, name -> float64 [requests, documents].
        under_rewrite: Each rewrite signal under the rewrite, kind -> name -> float64 [requests, documents]; NaN on a document
            of a request: that kind has no rewrite for it.
    """

    group: tuple[str, ...]
    relevance: FloatArray
    valid: BoolArray
    under_query: Mapping[str, FloatArray]
    under_rewrite: Mapping[str, Mapping[str, FloatArray]]

    def __post_init__(self) -> None:
        shape = self.relevance.shape
        if CHAMPION not in self.under_rewrite or len(self.under_rewrite) < 2:
            raise ValueError(
                f"tuning needs rewrites of the kind {CHAMPION!r} and of at least one broken kind, "
                f"there are {sorted(self.under_rewrite)}"
            )
        arrays = {"valid": self.valid, **self.under_query}
        arrays |= {f"{kind}.{name}": x for kind, signals in self.under_rewrite.items() for name, x in signals.items()}
        for name, values in arrays.items():
            if values.shape != shape:
                raise ValueError(f"{name!r} has the shape {values.shape}, the relevance has {shape}")
        if len(self.group) != shape[0]:
            raise ValueError(f"{len(self.group)} groups for {shape[0]} requests")
        graded = np.where(self.valid, self.relevance, 0.0)
        if not (np.isfinite(graded).all() and (graded >= 0).all()):
            raise ValueError("a relevance is negative or no number: grades are 0 for what is not relevant, and more")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of rewrites: the champion, then the broken ones."""
        return (CHAMPION, *(k for k in self.under_rewrite if k != CHAMPION))
