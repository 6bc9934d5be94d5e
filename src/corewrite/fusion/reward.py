"""log R: what a rewrite does, in production's own formula, to satisfying documents against the others."""

import numpy as np
import numpy.typing as npt

from corewrite.fusion.spec import FusionSpec

FloatArray = npt.NDArray[np.float64]


def log_reward(
    spec: FusionSpec,
    log_factors: FloatArray | None,
    gains: FloatArray,
    weights: FloatArray,
    reach_gain: FloatArray | None = None,
) -> FloatArray:
    """log R(r; q, c): what the rewrite changes in finerank's log scores, and which documents it brings into finerank.

    The first term is the weighted mean, over pairs of D+ and D-, of the change in log(S(d+) / S(d-)): the log ratio of the
    fused scores with and without the rewrite. The second is the weighted share of D+ that the rewrite adds to what finerank
    ranks; rawrank's own factors are in it as far as they let a document in, which is all they do.

    Args:
        spec: Gives the two weights.
        log_factors: log F(d) of finerank, [..., documents]; None where finerank does not use the rewrite.
        gains: Weight g of each document in D+, 0 elsewhere, [..., documents].
        weights: Weight w of each document in D-, 0 elsewhere, [..., documents].
        reach_gain: reach(d | q, r) - reach(d | q, none), 0 or 1, [..., documents]; None where neither recall nor rawrank uses
            the rewrite.

    Returns:
        log R, [...]; NaN where a document of D+ has a reach that is not known. The identity has exactly 0 in the ratio form;
        `FusedReward` gives it 0 in every form.

    Raises:
        ValueError: D+ or D- is empty.
    """
    up, down = gains.sum(-1, keepdims=True), weights.sum(-1, keepdims=True)
    if (up <= 0).any() or (down <= 0).any():
        raise ValueError("the reward needs a document in D+ and one in D- of every instance")
    # One signed weight per document: sums of equal terms cancel exactly only if subtracted pair by pair, not here,
    # but a factor of 1 everywhere has log 0 everywhere and gives exactly 0.
    signed = gains / up - weights / down
    total = np.zeros(signed.shape[:-1])
    if spec.reward.finerank_weight and log_factors is not None:
        total = total + spec.reward.finerank_weight * (signed * log_factors).sum(-1)
    if spec.reward.reach_weight and reach_gain is not None:
        # Not gains / up * reach_gain: 0 times a reach that is not known, of a document outside of D+, would be NaN.
        gained = np.where(gains > 0, gains * reach_gain, 0.0).sum(-1)
        total = total + spec.reward.reach_weight * gained / up[..., 0]
    return np.asarray(total)


def arithmetic_log_reward(log_factors: FloatArray, gains: FloatArray, weights: FloatArray) -> FloatArray:
    """The ablation: log of a ratio of arithmetic means of F over D+ and D-, one stage; shapes as in `log_reward`."""
    factor = np.exp(log_factors)
    up = (gains * factor).sum(-1) / gains.sum(-1)
    down = (weights * factor).sum(-1) / weights.sum(-1)
    return np.asarray(np.log(up) - np.log(down))
