"""The checks: one question each, answered by a difference in which higher is better."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from corewrite.gate.check import Check, Estimate, ItemCounts, MeanCheck, SetCheck
from corewrite.gate.evaluation import Evaluation
from corewrite.gate.resampling import Bounds, Resampling, bounds

FloatArray = npt.NDArray[np.float64]


class FusedReward(MeanCheck):
    """Mean log R under the fusion spec and relevance model that training used."""

    name = "fused_reward"
    question = "Does the reward rise?"
    kind = "reward"

    @property
    def margin(self) -> float:
        """0: a reward that does not rise is no reason to change the champion."""
        return 0.0

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """log R."""
        return _reward(evaluation)


class JudgeNdcg(MeanCheck):
    """Mean nDCG@10 of the fused list under a judge that training never saw."""

    name = "judge_ndcg"
    question = "Does the judge agree that results get no worse than the champion's?"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Judge nDCG@10."""
        return _judge(evaluation)


class JudgeNdcgVsNoRewriter(MeanCheck):
    """Mean judge nDCG@10 against the lists with no rewriter: slow decay over many champions shows here."""

    name = "judge_ndcg_vs_no_rewriter"
    question = "Are results no worse than without a rewriter?"
    baseline = "no rewriter"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Judge nDCG@10."""
        candidate = _complete(evaluation.candidate.judge_ndcg, "candidate.judge_ndcg", evaluation)
        return candidate, _original(evaluation)


class WorstSlice(Check):
    """The lowest difference in mean judge nDCG@10 over the slices.

    The difference is the lowest of those measured. The one that looks worst is often so by chance, and a
    bootstrap of the minimum is inconsistent where slices tie, as all do when nothing has changed. So the
    bounds are built from the slices' own:

    - L is the lowest of the slices' L, each at 97.5 %. It is above the truth only where the L of the truly
      worst slice is, in at most 2.5 % of cases (an intersection-union test, Berger 1982): no correction is
      needed.
    - U is the lowest of the slices' U, and any of them may be too low: each is at 1 - 2.5 % / slices
      (Bonferroni). The p-value is the lowest of the slices' times their number.

    Slices with fewer than `minimum_users` users are left out, and the note says so.
    """

    name = "worst_slice"
    question = "Is no part of the traffic worse off?"

    def compute(self, evaluation: Evaluation, resampling: Resampling) -> Estimate:
        """Compare every slice."""
        users = {name: resampling.users_in(mask) for name, mask in evaluation.slices.items()}
        names = [name for name, count in users.items() if count >= self.config.minimum_users]
        left_out = [f"{name} ({count} users)" for name, count in users.items() if name not in names]
        if not names:
            raise ValueError(
                f"no slice has {self.config.minimum_users} users "
                f"({', '.join(left_out) or 'none was given'}): evaluate more users or give coarser slices"
            )
        candidate, champion = _judge(evaluation)
        masks = np.stack([evaluation.slices[name] for name in names], axis=1).astype(np.float64)
        differences, errors = resampling.ratio_of_sums((candidate - champion)[:, None] * masks, masks)
        each = [
            bounds(float(d), float(e), users[name], self.margin, comparisons=len(names))
            for name, d, e in zip(names, differences, errors, strict=True)
        ]
        limits = Bounds(min(b.low for b in each), min(b.high for b in each), min(b.p_value for b in each))
        worst = int(np.argmin(differences))
        mask = evaluation.slices[names[worst]]
        note = f"worst of {len(names)} slices: {names[worst]}"
        if left_out:
            note += f"; left out for want of users: {', '.join(left_out)}"
        means = float(candidate[mask].mean()), float(champion[mask].mean())
        return Estimate(*means, float(differences[worst]), limits, int(mask.sum()), note)


class Length(MeanCheck):
    """Mean words of the served text; a reward can be raised by padding."""

    name = "length"
    question = "Do rewrites grow no longer?"
    sign = -1

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Words."""
        sides = evaluation.candidate_words, evaluation.champion_words
        candidate, champion = (np.array([len(text) for text in side], np.float64) for side in sides)
        return candidate, champion


class Copying(MeanCheck):
    """Mean share of served words that are in the context but not in the query; 0 where the query stands."""

    name = "copying"
    question = "Is no more copied from the context?"
    sign = -1

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Share of words."""
        context = evaluation.context_only
        return _copied(evaluation.candidate_words, context), _copied(evaluation.champion_words, context)


class HarmRate(MeanCheck):
    """Share of queries that lose more than tau of judge nDCG@10 against no rewriter.

    A mean can rise while many queries are harmed.
    """

    name = "harm_rate"
    question = "Are no more queries harmed?"
    sign = -1

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """1 where harmed."""
        candidate, champion = _judge(evaluation)
        least = _original(evaluation) - self.config.harm_threshold
        return (candidate < least).astype(np.float64), (champion < least).astype(np.float64)


class Inflation(MeanCheck):
    """Gain in reward minus gain in judge nDCG@10, each over its standard deviation across queries.

    Where the reward's gain outruns the judge's, the policy may be learning the relevance model's mistakes.
    In the result the candidate's column is the gain in reward and the baseline's that in judge nDCG.
    """

    name = "inflation"
    question = "Does the judge's gain keep up with the reward's?"
    kind = "report"
    baseline = "judge's gain"
    sign = -1

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Gains in standard deviations."""
        return _standardised(*_reward(evaluation)), _standardised(*_judge(evaluation))


class Distinct2(SetCheck):
    """Distinct word bigrams over all word bigrams of the served texts (distinct-2, arXiv 1510.03055)."""

    name = "distinct_2"
    question = "Do rewrites stay as diverse?"

    def items(self, evaluation: Evaluation) -> tuple[list[list[str]], list[list[str]]]:
        """Bigrams."""
        sides = evaluation.candidate_words, evaluation.champion_words
        candidate, champion = ([[f"{a} {b}" for a, b in pairwise(text)] for text in side] for side in sides)
        return candidate, champion

    def share(self, counts: FloatArray) -> float:
        """Distinct over all."""
        total = float(counts.sum())
        if not total:
            raise ValueError("distinct-2 is undefined: no served text of the sample has two words")
        return float((counts > 0).sum()) / total


class CommonestRewrite(SetCheck):
    """Share of the commonest text among the rewrites that differ from their query; 0 where none does."""

    name = "commonest_rewrite"
    question = "Does no one rewrite take over?"
    sign = -1

    def items(self, evaluation: Evaluation) -> tuple[list[list[str]], list[list[str]]]:
        """The rewrite where it differs."""
        sides = evaluation.candidate, evaluation.champion
        candidate, champion = ([[r] if r else [] for r in evaluation.changed(side)] for side in sides)
        return candidate, champion

    def share(self, counts: FloatArray) -> float:
        """Commonest over all."""
        total = float(counts.sum())
        return float(counts.max()) / total if total else 0.0

    def note(self, candidate: ItemCounts) -> str:
        """The commonest rewrite."""
        return f"the candidate's commonest rewrite: {candidate.commonest()!r}" if candidate.names else ""


CHECKS: Mapping[str, type[Check]] = {
    check.name: check
    for check in (
        FusedReward,
        JudgeNdcg,
        JudgeNdcgVsNoRewriter,
        WorstSlice,
        HarmRate,
        Length,
        Copying,
        Distinct2,
        CommonestRewrite,
        Inflation,
    )
}
"""All checks by name, in the order of the report."""


def _complete(values: FloatArray | None, name: str, evaluation: Evaluation) -> FloatArray:
    """`values`, or an error that names the first that is missing."""
    if values is None:
        raise ValueError(f"{name} was not given")
    array = np.asarray(values, np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        first = int(bad[0])
        raise ValueError(
            f"{name} is not a finite number at query index {first} ({evaluation.queries[first].text!r}), "
            f"nor at {bad.size - 1} others"
        )
    return array


def _reward(evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
    return (
        _complete(evaluation.candidate.log_reward, "candidate.log_reward", evaluation),
        _complete(evaluation.champion.log_reward, "champion.log_reward", evaluation),
    )


def _judge(evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
    return (
        _complete(evaluation.candidate.judge_ndcg, "candidate.judge_ndcg", evaluation),
        _complete(evaluation.champion.judge_ndcg, "champion.judge_ndcg", evaluation),
    )


def _original(evaluation: Evaluation) -> FloatArray:
    return _complete(evaluation.original_judge_ndcg, "original_judge_ndcg", evaluation)


def _copied(served: Sequence[Sequence[str]], context_only: Sequence[frozenset[str]]) -> FloatArray:
    shares = [
        sum(w in context for w in text) / len(text) if text else 0.0 for text, context in zip(served, context_only, strict=True)
    ]
    return np.array(shares)


def _standardised(candidate: FloatArray, baseline: FloatArray) -> FloatArray:
    gain = candidate - baseline
    largest = float(np.abs(gain).max())
    if not largest:
        return gain
    spread = float(gain.std())
    if spread <= 1e-9 * largest:
        raise ValueError(f"the gain is {largest:.4g} on every query: without a spread it cannot be standardised")
    return gain / spread
