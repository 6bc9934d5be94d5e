"""Promotion without a gate, for the arm that shows what the gate is worth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from corewrite.cycle.records import RankerHashes
from corewrite.gate import Verdict
from corewrite.relevance import ProbeResult


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
