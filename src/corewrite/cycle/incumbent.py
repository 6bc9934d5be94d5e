"""What a candidate outside the weekly cycle has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

from corewrite.cycle.candidate_config import PipelineConfig
from corewrite.cycle.present_ranker import open_present_ranker
from corewrite.cycle.steps.champion_holds import champion_holds
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.load import first_champion, load_policy, recent_champions
from corewrite.deployment.open import RankerOpener
from corewrite.domain import TrainingInstance
from corewrite.evaluation.build import OF_NO_LINEAGE
from corewrite.gate import Absent
from corewrite.registry import Candidate, Champion, Registry
from corewrite.relevance import Judge
from corewrite.rewriter import Rewriter

_RECENT = 8


@dataclass(frozen=True, eq=False)
class Incumbent:
    """The champion as it was when a run began: what its candidate has to beat.

    Attributes:
        champion: None where there was none.
        policy: Its policy, loaded before an hour goes into training; None without a champion.
    """

    champion: Champion | None
    policy: Rewriter | None

    @classmethod
    def of(cls, registry: Registry, champion: Champion | None = None) -> "Incumbent":
        """The champion, or `champion`."""
        champion = champion or registry.champion()
        return cls(champion, None if champion is None else load_policy(registry, champion.policy))

    @property
    def version(self) -> int | None:
        """Version of the champion."""
        return None if self.champion is None else self.champion.version

    def before(self, registry: Registry, triple: Candidate) -> "Incumbent":
        """This; where it is the candidate itself, promoted by the run that is now repeated, the champion before it."""
        if self.champion is None or self.champion.hashes != triple.hashes:
            return self
        decisions = registry.decisions()
        previous = decisions[self.champion.version - 1].previous
        if previous is None:
            return Incumbent(None, None)
        found = decisions[previous - 1].candidate
        assert found is not None
        return Incumbent.of(registry, Champion(**found.hashes, version=previous, fallback=None))

    def recent(self, registry: Registry) -> list[Rewriter]:
        """Champions before it."""
        if self.champion is None:
            return []
        served = [
            {"policy": d.candidate.policy}
            for d in registry.decisions()[: self.champion.version]
            if d.verdict in ("promote", "rollback") and d.candidate
        ]
        return recent_champions(registry, served[-_RECENT:], self.champion.policy)

    def lineage(self, registry: Registry) -> Rewriter | Absent:
        """The first champion, where it is another."""
        if self.champion is None:
            return Absent("there is no champion yet")
        return first_champion(registry, self.champion.policy) or OF_NO_LINEAGE

    def problems(
        self,
        registry: Registry,
        triple: Candidate,
        instances: Sequence[TrainingInstance],
        new: Deployment,
        opener: RankerOpener,
        judge: Judge,
        config: PipelineConfig,
    ) -> list[str]:
        """What speaks against the candidate's relevance model and spec: the champion must hold under them, as in a cycle.

        Where the champion's ranker is gone, its lists under the new one are compared with those without a rewriter alone.

        Raises:
            ScorerUnavailableError: it does not answer, but the settings name it still: run again when it does.
        """
        champion = self.champion
        if champion is None or (champion.relevance, champion.spec) == (triple.relevance, triple.spec):
            return []
        assert self.policy is not None
        now = open_present_ranker(champion, registry, opener).deployment
        return champion_holds(self.policy, instances, now, new, judge, config.gate, max_new_tokens=config.max_new_tokens)
