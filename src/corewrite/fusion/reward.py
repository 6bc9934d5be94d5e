"""log R: what a rewrite does, in production's own formula, to satisfying documents against the others."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from corewrite.fusion.spec import FusionSpec

FloatArray = npt.NDArray[np.float64]


def log_reward(
    spec: FusionSpec,
    log_factors: Mapping[str, FloatArray],
    gains: FloatArray,
    weights: FloatArray,
    hit_gain: FloatArray | None = None,
) -> FloatArray:
    """log R(r; q, c): the log ratio of the fused score with and without the rewrite.

    The bracket of each stage is the weighted mean, over pairs of D+ and D-, of the change in log(S(d+) / S(d-)).

    Args:
        spec: Gives the stage weights lambda_s and lambda_rec.
        log_factors: log F_s(d) per rank stage, [..., documents].
        gains: Weight g of each document in D+, 0 elsewhere, [..., documents].
        weights: Weight w of each document in D-, 0 elsewhere, [..., documents].
        hit_gain: hit_m(r) - hit_m(q), [...]; None where recall does not consume rewrites.

    Returns:
        log R, [...]. The identity has exactly 0 in the ratio form; `FusedReward` gives it 0 in every form.

    Raises:
        ValueError: D+ or D- is empty, or lambda_rec is above 0 and `hit_gain` is None.
    """
    up, down = gains.sum(-1, keepdims=True), weights.sum(-1, keepdims=True)
    if (up <= 0).any() or (down <= 0).any():
        raise ValueError("the reward needs a document in D+ and one in D- of every instance")
    # One signed weight per document: sums of equal terms cancel exactly only if subtracted pair by pair, not here,
    # but a factor of 1 everywhere has log 0 everywhere and gives exactly 0.
    signed = gains / up - weights / down
    total = np.zeros(signed.shape[:-1])
    for stage, weight in spec.reward.stage_weights.items():
        if weight and stage in log_factors:
            total = total + weight * (signed * log_factors[stage]).sum(-1)
    if spec.reward.recall_weight:
        if hit_gain is None:
            raise ValueError("recall_weight is above 0 but no hit_gain was given")
        total = total + spec.reward.recall_weight * hit_gain
    return np.asarray(total)


def arithmetic_log_reward(log_factors: FloatArray, gains: FloatArray, weights: FloatArray) -> FloatArray:
    """The ablation: log of a ratio of arithmetic means of F over D+ and D-, one stage; shapes as in `log_reward`."""
    factor = np.exp(log_factors)
    up = (gains * factor).sum(-1) / gains.sum(-1)
    down = (weights * factor).sum(-1) / weights.sum(-1)
    return np.asarray(np.log(up) - np.log(down))
