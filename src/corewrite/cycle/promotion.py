"""Who has the last word in a cycle: whether a ranker is believed, a candidate promoted, a lesson drawn from a REJECT."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from corewrite.cycle.records import RankerHashes
from corewrite.gate import Verdict
from corewrite.relevance import ProbeResult


class PromotionPolicy(Protocol):
    """What a cycle asks before it puts something into production."""

    def probe_problems(self, probed: ProbeResult) -> list[str]:
        """What the probe says against training on a new relevance model or spec; nothing: it may be."""
        ...

    def champion_problems(self, validate: Callable[[], list[str]]) -> list[str]:
        """What speaks against a new relevance model or spec under the champion.

        Args:
            validate: Compares the champion's lists under the new one with those under the present one.
        """
        ...

    def mitigations(self, wanted: Sequence[str]) -> list[str]:
        """Which of the mitigations that the latest REJECTs ask for the training takes up."""
        ...

    def verdict(self, gate: Verdict) -> Verdict:
        """What becomes of the candidate, by the gate's verdict."""
        ...

    def previous_ranker(self, find: Callable[[], RankerHashes | None]) -> RankerHashes | None:
        """The relevance model and spec to go back to; None: the present ones stay.

        Args:
            find: Looks for one, where the present ones are suspected.
        """
        ...


@dataclass(frozen=True)
class GatedPromotion:
    """Nothing is promoted but what probe, champion and gate say is better: the default."""

    def probe_problems(self, probed: ProbeResult) -> list[str]:
        """Every adversarial rewrite that is paid for."""
        return [f"{f.name} earns {f.reward:+.3f} nats of log R" for f in probed.findings if f.paid]

    def champion_problems(self, validate: Callable[[], list[str]]) -> list[str]:
        """All that the validation finds."""
        return validate()

    def mitigations(self, wanted: Sequence[str]) -> list[str]:
        """All of them."""
        return list(wanted)

    def verdict(self, gate: Verdict) -> Verdict:
        """The gate's."""
        return gate

    def previous_ranker(self, find: Callable[[], RankerHashes | None]) -> RankerHashes | None:
        """What is found."""
        return find()
