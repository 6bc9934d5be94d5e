"""Distance of the policy from its reference, champion and lineage, and forgetting."""

import numpy as np
import numpy.typing as npt

from corewrite.gate.check import MeanCheck, register
from corewrite.gate.evaluation import CHAMPION, Evaluation, NotApplicableError
from corewrite.gate.ratio_of_sums import EVENT_WITH_LIMIT, UNLIMITED, GainRange

FloatArray = npt.NDArray[np.float64]


class _Kl(MeanCheck):
    """Mean divergence from another policy, nats a token; the margin is the limit on it."""

    gain_range = GainRange(highest=0.0)
    baseline = "zero"
    sign = -1
    mitigation = "stronger_kl"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Nats a token."""
        (name,) = self.needs
        return evaluation.numbers(name), np.zeros(len(evaluation))


@register
class KlReference(_Kl):
    """Mean divergence from what training began from, nats a token; the margin is the limit on it."""

    name = "kl_reference"
    question = "Is the policy still near its reference?"
    needs = ("kl.reference",)
    excused_by = "judge_ndcg"
    default_margin = 1.0


@register
class KlChampion(_Kl):
    """Mean divergence from the champion, nats a token; the margin is the limit on it."""

    name = "kl_champion"
    question = "Is the policy still near the champion?"
    needs = ("kl.champion",)
    excused_by = "judge_ndcg"
    default_margin = 1.0


@register
class KlLineage(_Kl):
    """Mean divergence from the warm start that all champions come from, nats a token; the margin is the limit on it."""

    name = "kl_lineage"
    question = "Is the policy still near where its lineage began?"
    needs = ("kl.lineage",)
    default_margin = 3.0


@register
class RepairLogProb(MeanCheck):
    """Mean log-probability, nats a token, of the text by which the user found satisfaction.

    Where training raises the reward and this falls, it moves the policy away from good texts (likelihood
    displacement, arXiv 2410.08847).
    """

    name = "repair_log_prob"
    question = "Does the policy still find the users' own repairs likely?"
    gain_range = UNLIMITED
    needs = ("candidate.repair_log_prob", "champion.repair_log_prob")
    excused_by = "judge_ndcg"
    default_margin = 0.3
    mitigation = "higher_sft_weight"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Nats a token where the user repaired the query."""
        candidate, champion = map(evaluation.numbers, self.needs)
        differ = np.flatnonzero(np.isnan(candidate) != np.isnan(champion))
        if differ.size:
            others = differ.size - 1
            raise ValueError(f"repair_log_prob is NaN for one policy only at query index {differ[0]}, and at {others} others")
        return candidate, champion


@register
class HeadChurn(MeanCheck):
    """Share of the slice "head" whose served text differs from the champion's; the margin is the limit on it.

    Users and caches know what frequent queries bring. Not applicable where no champion serves: nobody has seen the rewrites of
    what stands in for one.
    """

    name = "head_churn"
    question = "Do frequent queries keep their rewrites?"
    gain_range = EVENT_WITH_LIMIT
    baseline = "zero"
    sign = -1
    needs = ("slices.head",)
    excused_by = "judge_ndcg"
    default_margin = 0.75
    mitigation = "lower_rate"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """1 where it differs, on the head."""
        if evaluation.champion_name != CHAMPION:
            raise NotApplicableError(f"no champion serves yet: nobody has seen what the {evaluation.champion_name} rewrites")
        pairs = zip(evaluation.candidate_served.texts, evaluation.champion_served.texts, strict=True)
        differs = np.array([float(a != b) for a, b in pairs])
        head = evaluation.slices["head"]
        return np.where(head, differs, np.nan), np.where(head, 0.0, np.nan)
