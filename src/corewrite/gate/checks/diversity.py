"""Diversity of the set of rewrites."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from corewrite.gate.check import ItemCounts, SetCheck, register
from corewrite.gate.evaluation import ServedTexts

FloatArray = npt.NDArray[np.float64]


@register
class Distinct2(SetCheck):
    """Distinct word bigrams over all word bigrams of the served texts (distinct-2, arXiv 1510.03055)."""

    name = "distinct_2"
    question = "Do rewrites stay as diverse?"
    excused_by = "judge_ndcg"
    default_margin = 0.10
    mitigation = "higher_sft_weight"

    def items(self, served: ServedTexts) -> list[list[str]]:
        """Bigrams."""
        return [[f"{a} {b}" for a, b in pairwise(text)] for text in served.words]

    def share(self, counts: FloatArray) -> float:
        """Distinct over all."""
        total = float(counts.sum())
        if not total:
            raise ValueError("distinct-2 is undefined: no served text of the sample has two words")
        return float((counts > 0).sum()) / total


@register
class TopRewriteShare(SetCheck):
    """Share of the most frequent text among the rewrites that differ from their query; 0 where none does."""

    name = "top_rewrite_share"
    earlier_name = "commonest_rewrite"
    question = "Does no one rewrite take over?"
    sign = -1
    default_margin = 0.05
    mitigation = "higher_sft_weight"

    def items(self, served: ServedTexts) -> list[list[str]]:
        """The rewrite where it differs."""
        return [[text] if text else [] for text in served.changed]

    def share(self, counts: FloatArray) -> float:
        """Most frequent over all."""
        total = float(counts.sum())
        return float(counts.max()) / total if total else 0.0

    def note(self, candidate: ItemCounts) -> str:
        """The most frequent rewrite."""
        return f"the candidate's most frequent rewrite: {candidate.most_frequent()!r}" if candidate.names else ""
