"""Reward-like checks: by the reward, and by a judge that training never saw, corrected by raters' direct grades."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from corewrite.gate.check import Check, Estimate, MeanCheck, register
from corewrite.gate.evaluation import Evaluation
from corewrite.gate.ratio_of_sums import EVENT, SHARE, UNLIMITED, GainRange, RatioOfSums
from corewrite.gate.resampling import Resampling

FloatArray = npt.NDArray[np.float64]

_REWARD = ("candidate.log_reward", "champion.log_reward")
_JUDGE = ("candidate.judge_ndcg", "champion.judge_ndcg")
_ALPHA = 1.0
"""Of URisk: a point lost counts 1 + alpha points of gain."""
CORRECTED = "corrected by raters' direct grades"
"""The remark on a check that heard them."""


@register
class FusedRewardCheck(MeanCheck):
    """Mean log R under the fusion spec and relevance model that training used, nats.

    It has no margin. What else speaks for a candidate whose reward stays the same, since training has used up what the reward
    can tell: that the judge rises, or that the champion has aged by a HOLD (`reward_not_lower`).
    """

    name = "fused_reward"
    question = "Does the reward rise?"
    gain_range = UNLIMITED
    kind = "reward"
    needs = _REWARD
    excused_by = "judge_ndcg"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """log R."""
        return _pair(evaluation, _REWARD)


class JudgedMean(MeanCheck):
    """A mean of the judge's nDCG@10, corrected by raters' direct grades where the evaluation has them.

    Of `needs` the first two are compared.
    """

    gain_range = SHARE

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Judge nDCG@10, corrected."""
        return _judged(evaluation, self.needs)

    def gain_range_of(self, evaluation: Evaluation) -> GainRange:
        """A single corrected value may be anything."""
        return UNLIMITED if _corrected(evaluation, self.needs) else SHARE

    def note(self, evaluation: Evaluation) -> str:
        """Whether raters graded what differs."""
        return CORRECTED if _corrected(evaluation, self.needs) else ""


@register
class JudgeNdcg(JudgedMean):
    """Mean nDCG@10 of the fused list under a judge that training never saw."""

    name = "judge_ndcg"
    question = "Does the judge agree that results get no worse than the champion's?"
    needs = _JUDGE
    default_margin = 0.005
    mitigation = "stronger_kl"


@register
class JudgeNdcgVsNoRewriter(JudgedMean):
    """Mean judge nDCG@10 against the lists with no rewriter: slow decay over many champions shows here."""

    name = "judge_ndcg_vs_no_rewriter"
    question = "Are results no worse than without a rewriter?"
    baseline = "no rewriter"
    needs = ("candidate.judge_ndcg", "original_judge_ndcg")
    default_margin = 0.005
    mitigation = "stronger_kl"


@register
class JudgeNdcgVsRecent(JudgedMean):
    """Mean judge nDCG@10 against the best champion of the last 8 weeks.

    Against the champion alone, every week could lose what its margin allows.
    """

    name = "judge_ndcg_vs_recent"
    question = "Are results no worse than the best recent champion's?"
    baseline = "best recent champion"
    needs = ("candidate.judge_ndcg", "recent.judge_ndcg")
    default_margin = 0.005
    mitigation = "stronger_kl"


@register
class WorstSlice(Check):
    """The lowest difference in mean judge nDCG@10 over the slices; smaller, so noisier, than the whole.

    The difference is the lowest of those measured. The one that looks worst is often so by chance, and a
    bootstrap of the minimum is inconsistent where slices tie, as all do when nothing has changed. So the
    bounds are built from the slices' own:

    - L is the lowest of the slices' L, each at 97.5 %. It is above the truth only where the L of the truly
      worst slice is, in at most 2.5 % of cases (an intersection-union test, Berger 1982): no correction is
      needed.
    - U is the lowest of the slices' U, and any of them may be too low: each is at 1 - 2.5 % / slices
      (Bonferroni). The p-value is the lowest of the slices' times their number.

    By the judge alone: of a slice too few searches have direct grades, and a correction by those would be mostly noise.

    Slices with fewer than `minimum_effective_users` are left out, and the note says so.
    """

    name = "worst_slice"
    question = "Is no part of the traffic worse off?"
    needs = (*_JUDGE, "slices")
    default_margin = 0.02
    mitigation = "stronger_kl"

    def _compare(self, evaluation: Evaluation, resampling: Resampling) -> Estimate:
        """Compare every slice."""
        if not evaluation.slices:
            raise ValueError("no slice was given: name the parts of the traffic worth protecting")
        candidate, champion = _pair(evaluation, _JUDGE)
        masks = np.stack(list(evaluation.slices.values()), axis=1).astype(np.float64)
        queries = resampling.per_user(masks)
        few = {name: self.config.too_few(column) for name, column in zip(evaluation.slices, queries.T, strict=True)}
        left_out = "; ".join(f"{name}: {users}" for name, users in few.items() if users)
        names = [name for name, users in few.items() if not users]
        if not names:
            raise ValueError(f"no slice has enough users ({left_out}): evaluate more users or give coarser slices")
        enough = np.array([not users for users in few.values()])
        gains = resampling.per_user((candidate - champion)[:, None] * masks[:, enough])
        found = RatioOfSums(gains, queries[:, enough], SHARE)
        each = found.bounds(self.margin, comparisons=len(names))
        # How many users there are and are needed is said of the slice that is the nearest to holding the candidate back.
        lowest = min(each, key=lambda b: b.low)
        limits = replace(lowest, high=min(b.high for b in each), p_value=min(b.p_value for b in each))
        differences = found.mean
        worst = int(np.argmin(differences))
        mask = evaluation.slices[names[worst]]
        note = f"worst of {len(names)} slices: {names[worst]}"
        if left_out:
            note += f"; left out for want of users: {left_out}"
        means = float(candidate[mask].mean()), float(champion[mask].mean())
        return Estimate(*means, float(differences[worst]), limits, int(mask.sum()), note)


@register
class RiskSensitiveNdcg(MeanCheck):
    """Mean gain in judge nDCG@10 over no rewriter, where a loss counts twice: URisk with alpha 1.

    URisk is mean(g) - alpha mean(max(-g, 0)) for g = nDCG(rewritten) - nDCG(no rewriter), "Robust Ranking Models via
    Risk-Sensitive Optimization" (Wang, Bennett & Collins-Thompson, SIGIR 2012). A policy that rewrites more queries harms more
    of them: what counts is whether the others gain twice what these lose. The mean gain is corrected by raters' direct grades
    where the evaluation has them; the losses are of single queries, so by the judge alone, whose noise makes them too large.
    """

    name = "risk_sensitive_ndcg"
    question = "Do gains over no rewriter, less twice the losses, not fall?"
    gain_range = UNLIMITED
    needs = (*_JUDGE, "original_judge_ndcg")
    optional = True  # its data are those of the harm rate, which is required
    default_margin = 0.005
    mitigation = "wider_pair_margin"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Gain less alpha times the loss."""
        corrected, original = _corrected(evaluation, self.needs), evaluation.numbers("original_judge_ndcg")
        *judged, baseline = (evaluation.numbers(_corrected_name(n) if corrected else n) for n in self.needs)
        losses = [np.maximum(original - judge, 0.0) for judge in _pair(evaluation, _JUDGE)]
        candidate, champion = (x - baseline - _ALPHA * loss for x, loss in zip(judged, losses, strict=True))
        return candidate, champion

    def note(self, evaluation: Evaluation) -> str:
        """Whether raters graded what differs."""
        return CORRECTED if _corrected(evaluation, self.needs) else ""


@register
class HarmRate(MeanCheck):
    """Share of queries that lose more than tau of judge nDCG@10 against no rewriter.

    A mean can rise while many queries are harmed. By the judge alone: raters' direct grades correct means, not single queries.
    """

    name = "harm_rate"
    question = "Are no more queries harmed?"
    gain_range = EVENT
    sign = -1
    needs = (*_JUDGE, "original_judge_ndcg")
    default_margin = 0.03
    mitigation = "wider_pair_margin"
    excused_by = "risk_sensitive_ndcg"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """1 where harmed."""
        candidate, champion = _pair(evaluation, _JUDGE)
        least = evaluation.numbers("original_judge_ndcg") - self.config.harm_threshold
        return (candidate < least).astype(np.float64), (champion < least).astype(np.float64)


@register
class RewardNotLower(MeanCheck):
    """Mean log R, nats, with a margin: what is asked of the reward where the judge rises, or after a HOLD."""

    name = "reward_not_lower"
    question = "Does the reward not fall?"
    gain_range = UNLIMITED
    kind = "not lower"
    needs = _REWARD
    default_margin = 0.01

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """log R."""
        return _pair(evaluation, _REWARD)


@register
class NewEntities(JudgedMean):
    """Mean judge nDCG@10 on the slice "new": what came into the world after the champion's training is what a new one is for.

    By the judge, since a relevance model knows new entities no better than the champion does. It decides nothing: of a week's
    few searches for them no rise can be shown.
    """

    name = "new_entities"
    question = "Do results rise where the entity is new?"
    kind = "report"
    needs = (*_JUDGE, "slices.new")

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Judge nDCG@10 of new entities' queries."""
        candidate, champion = _judged(evaluation, _JUDGE)
        new = evaluation.slices["new"]
        return np.where(new, candidate, np.nan), np.where(new, champion, np.nan)


@register
class Inflation(MeanCheck):
    """Gain in reward minus gain in judge nDCG@10, each over its standard deviation across queries.

    Where the reward's gain outruns the judge's, the policy may be learning the relevance model's mistakes.
    It decides nothing: the reward is what is trained on, so it outruns the judge in honest weeks too.
    In the result the candidate's column is the gain in reward and the baseline's that in judge nDCG.
    """

    name = "inflation"
    question = "Does the judge's gain keep up with the reward's?"
    gain_range = UNLIMITED
    kind = "report"
    baseline = "judge's gain"
    sign = -1
    needs = (*_REWARD, *_JUDGE)
    default_margin = 0.2
    mitigation = "stronger_kl"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Gains in standard deviations."""
        return _standardised(*_pair(evaluation, _REWARD)), _standardised(*_pair(evaluation, _JUDGE))


def _pair(evaluation: Evaluation, names: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
    candidate, baseline = names
    return evaluation.numbers(candidate), evaluation.numbers(baseline)


def _corrected(evaluation: Evaluation, names: Sequence[str]) -> bool:
    """Whether raters graded what the two systems differ in."""
    return all(evaluation.has(_corrected_name(name)) for name in names)


def _judged(evaluation: Evaluation, names: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Judge nDCG@10 of two systems, both corrected or neither."""
    corrected = _corrected(evaluation, names)
    candidate, baseline = (evaluation.numbers(_corrected_name(n) if corrected else n) for n in names[:2])
    return candidate, baseline


def _corrected_name(name: str) -> str:
    return name.replace("judge_ndcg", "corrected_ndcg")


def _standardised(candidate: FloatArray, baseline: FloatArray) -> FloatArray:
    gain = candidate - baseline
    largest = float(np.abs(gain).max())
    if not largest:
        return gain
    spread = float(gain.std())
    if spread <= 1e-9 * largest:
        raise ValueError(f"the gain is {largest:.4g} on every query: without a spread it cannot be standardised")
    return gain / spread
