"""The fusion of a turn's own signals with its rewrite's, by the project's one formula."""

import numpy as np
import numpy.typing as npt

from corewrite.fusion import FusionSpec, OriginalSignal, RewriteSignal, SpecError, StageSpec, evaluate_stage
from corewrite.relevance.backends.calibration import LOWEST, ScoreCalibration

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

RELEVANCE = "relevance"
DEFAULT_STAGE = StageSpec(
    original=(OriginalSignal(signal=RELEVANCE, eps=LOWEST),),
    rewrite=(RewriteSignal(signal=RELEVANCE),),
)
"""The packaged spec's finerank without the prior, which passages do not have; its floor leaves the query's own order alone."""


def stage_of(spec: FusionSpec) -> StageSpec:
    """The stage of a spec that conversations are fused by: its finerank.

    Raises:
        SpecError: it asks for more than a passage's relevance.
    """
    others = sorted(set(spec.finerank.signals) - {RELEVANCE})
    if others:
        raise SpecError(
            f"finerank uses the signal {others[0]!r}, of passages there is only {RELEVANCE!r}: take it out of the spec's "
            "finerank, or leave --spec away"
        )
    return spec.finerank


def fused_scores(
    stage: StageSpec, calibration: ScoreCalibration, under_query: FloatArray, under_rewrite: FloatArray, given: BoolArray
) -> FloatArray:
    """Log scores of the fused ranking.

    Args:
        stage: Of one signal, `RELEVANCE`.
        calibration: Makes probabilities of the ranker's scores.
        under_query: Scores by the turn's own text, [turns, passages]; -inf where a passage is not found.
        under_rewrite: Scores by the rewrite.
        given: Whether each turn has a rewrite that is not its own text, [turns].

    Returns:
        Float64 [turns, passages]; -inf where neither text finds a passage. A turn without a rewrite has its own scores, as they
        came.
    """
    found = (under_query > -np.inf) | (under_rewrite > -np.inf)
    # Unmatched is the signal's floor: a text that has nothing of a passage scores it 0.
    own, new = (calibration(np.where(s > -np.inf, s, 0.0)) for s in (under_query, under_rewrite))
    fusion = evaluate_stage(stage, {RELEVANCE: own}, {RELEVANCE: new}, {RELEVANCE: given}, valid=found)
    # Not its log score: where probabilities end, passages of different scores would be equals.
    return np.where(given[:, None], fusion.log_score, under_query)
