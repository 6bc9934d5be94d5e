"""Length of the served texts: a reward can be raised by padding, and by dropping words."""

import numpy as np
import numpy.typing as npt

from corewrite.gate.bounds import bounds
from corewrite.gate.check import Check, Estimate, MeanCheck, TextCheck, register
from corewrite.gate.evaluation import Evaluation, ServedTexts
from corewrite.gate.ratio_of_sums import EVENT, UNLIMITED
from corewrite.gate.resampling import Resampling

FloatArray = npt.NDArray[np.float64]


@register
class Length(TextCheck):
    """Mean words of the served text."""

    name = "length"
    question = "Do rewrites grow no longer?"
    gain_range = UNLIMITED
    sign = -1
    excused_by = "judge_ndcg"
    default_margin = 0.75
    mitigation = "length_control"

    def of(self, served: ServedTexts, evaluation: Evaluation) -> FloatArray:
        """Words."""
        return served.lengths


@register
class LengthVsRecent(MeanCheck):
    """Mean words of the served text against the best champion of the last 8 weeks.

    Growth of half a word a week stays inside the weekly margin for ever; here it does not.
    """

    name = "length_vs_recent"
    question = "Are rewrites no longer than the best recent champion's?"
    gain_range = UNLIMITED
    baseline = "best recent champion"
    sign = -1
    needs = ("recent",)
    excused_by = "judge_ndcg_vs_recent"
    default_margin = 0.75
    mitigation = "length_control"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Words."""
        return evaluation.candidate_served.lengths, evaluation.recent_served.lengths


@register
class LongShare(MeanCheck):
    """Share of served texts with more words than 95 % of the champion's have; a mean hides a long tail."""

    name = "long_share"
    question = "Are no more rewrites long?"
    gain_range = EVENT
    sign = -1
    excused_by = "judge_ndcg"
    default_margin = 0.05
    mitigation = "length_control"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """1 where longer."""
        candidate, champion = evaluation.candidate_served.lengths, evaluation.champion_served.lengths
        limit = np.quantile(champion, 0.95, method="higher")
        return (candidate > limit).astype(np.float64), (champion > limit).astype(np.float64)


@register
class RewardLengthCorrelation(Check):
    """Correlation of log R with the words of the served text, over queries; 0 where either is constant.

    Where it rises, longer has begun to pay. A correlation is a smooth function of sums over queries, so the
    Poisson bootstrap of those sums gives its standard error (Efron & Tibshirani 1993, section 6).
    """

    name = "reward_length_correlation"
    question = "Does length not begin to pay?"
    sign = -1
    needs = ("candidate.log_reward", "champion.log_reward")
    excused_by = "judge_ndcg"
    default_margin = 0.15
    mitigation = "length_control"

    def _compare(self, evaluation: Evaluation, resampling: Resampling) -> Estimate:
        columns = [np.ones(len(evaluation))]
        for served, reward in zip((evaluation.candidate_served, evaluation.champion_served), self.needs, strict=True):
            x, y = _centred(served.lengths), _centred(evaluation.numbers(reward))
            columns += [x, y, x * x, y * y, x * y]
        whole, totals = resampling.totals(np.stack(columns, axis=1))
        values = float(_correlation(whole[0], whole[1:6])), float(_correlation(whole[0], whole[6:]))
        resampled = _correlation(totals[:, 0], totals[:, 1:6].T) - _correlation(totals[:, 0], totals[:, 6:].T)
        difference = self.sign * (values[0] - values[1]) + 0.0  # Adding 0.0 turns -0.0 into 0.0.
        limits = bounds(difference, float(resampled.std(ddof=1)), resampling.effective_users, self.margin)
        return Estimate(*values, difference, limits, len(evaluation))


def _centred(values: FloatArray) -> FloatArray:
    """Less the mean, so that the sums of squares do not cancel; exactly 0 where all are equal."""
    return values - values.mean() if np.ptp(values) > 0 else np.zeros(len(values))


def _correlation(n: FloatArray, sums: FloatArray) -> FloatArray:
    """From the number of queries [...] and the sums of x, y, x², y² and xy [5, ...]."""
    x, y, xx, yy, xy = sums / n
    spread = np.sqrt(np.maximum(xx - x * x, 0.0) * np.maximum(yy - y * y, 0.0))
    found: FloatArray = np.divide(xy - x * y, spread, out=np.zeros_like(spread), where=spread > 0)
    return found
