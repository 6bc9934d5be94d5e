"""What the stages of a cascade hand on, and its answers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.fusion import StageFusion

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CascadeStage:
    """One rank stage of a batch.

    Attributes:
        rows: Candidates, int64 [searches, candidates], -1 pads.
        fusion: Their scores and factors, [searches, candidates].
    """

    rows: IntArray
    fusion: StageFusion


@dataclass(frozen=True, eq=False)
class Candidates:
    """What recall brings.

    Attributes:
        rows: Candidates, int64 [searches, candidates], -1 pads.
        from_rewrite: Whether only the rewrite recalled the candidate, bool, as `rows`.
    """

    rows: IntArray
    from_rewrite: BoolArray


@dataclass(frozen=True, eq=False)
class Rawranked:
    """What rawrank passes on.

    Attributes:
        candidates: What recall brought.
        stage: Their scores and factors.
        kept: Candidates of finerank, int64 [searches, candidates], -1 pads.
    """

    candidates: Candidates
    stage: CascadeStage
    kept: IntArray


@dataclass(frozen=True, eq=False)
class Trace:
    """All that happened in a batch, for explaining.

    Attributes:
        rawrank: Candidates and factors at rawrank.
        finerank: Candidates and factors at finerank.
        order: Columns of the finerank candidates in ranked order, int64 [searches, candidates].
        from_rewrite: Whether only the rewrite recalled the candidate, bool, as `rawrank.rows`.
    """

    rawrank: CascadeStage
    finerank: CascadeStage
    order: IntArray
    from_rewrite: BoolArray


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers to a batch of searches.

    Attributes:
        rows: Ranked catalogue rows, int64 [searches, depth], -1 pads.
        scores: Their finerank log-scores, float64 [searches, depth], -inf pads.
        factors: Their finerank factors by name (`original.NAME`, `rewrite.NAME`), float64 [searches, depth]; 1 pads. The
            product of a document's factors is its score.
    """

    rows: IntArray
    scores: FloatArray
    factors: dict[str, FloatArray]
