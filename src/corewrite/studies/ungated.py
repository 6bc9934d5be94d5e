"""Promotion without a gate, for the arm that shows what the gate is worth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from corewrite.cycle import PipelineConfig
from corewrite.cycle.records import RankerHashes
from corewrite.gate import Verdict
from corewrite.relevance import ProbeResult

_FEW = 150
"""Searches and pairs of a gate whose verdict nobody follows: what is promoted does not depend on them."""


@dataclass(frozen=True)
class UngatedPromotion:
    """A `PromotionPolicy` that promotes whatever training gives, and believes every relevance model and spec."""

    def probe_problems(self, probed: ProbeResult) -> list[str]:
        """None, whatever is paid for."""
        return []

    def champion_problems(self, validate: Callable[[], list[str]]) -> list[str]:
        """None: nobody asks."""
        return []

    def mitigations(self, wanted: Sequence[str]) -> list[str]:
        """None: without a gate there is no REJECT to learn from."""
        return []

    def verdict(self, gate: Verdict) -> Verdict:
        """PROMOTE."""
        return Verdict.PROMOTE

    def previous_ranker(self, find: Callable[[], RankerHashes | None]) -> RankerHashes | None:
        """None: the present ones are never suspected."""
        return None


def with_cheap_gate(pipeline: PipelineConfig) -> PipelineConfig:
    """The pipeline of an arm without a gate, which is asked for form's sake."""
    few = {"gate_queries": min(_FEW, pipeline.gate_queries), "pairs_to_grade": min(_FEW, pipeline.pairs_to_grade)}
    return pipeline.model_copy(update=few)
