"""What the steps of a week's cycle read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from corewrite.cycle.config import CycleConfig
from corewrite.cycle.grading import LabelsFileRaters
from corewrite.cycle.judges import fitted_judge
from corewrite.cycle.mined_week import MinedWindow
from corewrite.cycle.parts import CycleParts
from corewrite.cycle.present_ranker import PresentRanker, open_configured_ranker, open_present_ranker
from corewrite.cycle.promotion import PromotionPolicy
from corewrite.cycle.records import MINE, CycleJournal, StartRecord, WeekRecord
from corewrite.cycle.steps.fit_relevance import Refit
from corewrite.cycle.users import frozen_users
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.load import first_champion, load_deployment, load_policy, recent_champions
from corewrite.deployment.open import RankerOpener
from corewrite.domain import Documents
from corewrite.domain.steps import Steps
from corewrite.evaluation.build import OF_NO_LINEAGE
from corewrite.evaluation.direct_grades import GradingTask
from corewrite.gate import Absent
from corewrite.logs.sealing import Unseal, load_keys
from corewrite.registry import Champion, Kind, Registry
from corewrite.relevance import Judge
from corewrite.relevance.pair_sample import Raters
from corewrite.rewriter import Rewriter
from corewrite.storage.journal import JournalError
from corewrite.storage.run_layout import CycleLayout, RunLayout


@dataclass(frozen=True, eq=False)
class CycleContext:
    """A cycle as it began; what a step makes is in the journal, the registry and the mined windows.

    Attributes:
        config: Settings.
        week: Name of its log.
        weeks: Log files by week, in order.
        journal: Of the week.
        registry: Of the run.
        documents: What is ranked.
        history: Finished weeks before it, oldest first.
        plan: What the cycle began with.
        labels: How many rated results the judge is of.
        promotion: Who has the last word.
        refit: Fits the relevance model.
        raters: Who grades the week's pairs; None: a team's own, by way of files.
        parts: Parts of the cycle.
        steps: Shows progress.
    """

    config: CycleConfig
    week: str
    weeks: Mapping[str, list[Path]]
    journal: CycleJournal
    registry: Registry
    documents: Documents
    history: Sequence[WeekRecord]
    plan: StartRecord
    labels: Mapping[str, object]
    promotion: PromotionPolicy
    refit: Refit
    raters: Raters | None
    parts: CycleParts
    steps: Steps

    # The week among others.

    @property
    def layout(self) -> RunLayout:
        """Where the run keeps what."""
        return RunLayout(self.config.run)

    @property
    def folder(self) -> CycleLayout:
        """Where the week keeps what."""
        return self.layout.cycle(self.week)

    @property
    def _place(self) -> int:
        return list(self.weeks).index(self.week)

    @property
    def weeks_before(self) -> list[str]:
        """The weeks before this one that the relevance model is fitted on."""
        return list(self.weeks)[max(0, self._place - self.config.refresh.relevance_windows) : self._place]

    @property
    def week_seed(self) -> int:
        """A seed for this week's training: two weeks must not draw the same numbers."""
        return self.config.seed + 1000 * (1 + self._place)

    @property
    def mitigations(self) -> list[str]:
        """What this week's training does differently."""
        return self.promotion.mitigations(self.plan["mitigations"])

    # Mined weeks.

    def window(self, name: str) -> MinedWindow:
        """A mined week, without the frozen set's users."""
        return MinedWindow(self.layout.window(name), self._frozen_users)

    def mined_windows(self) -> list[MinedWindow]:
        """The weeks before this one that were mined with it, and this one."""
        return [self.window(name) for name in self.journal.result(MINE)["windows"]]

    @property
    def _frozen_users(self) -> frozenset[str]:
        """Nobody, until there is a frozen set."""
        return self._in_frozen if self.config.frozen.is_file() else frozenset()

    @cached_property
    def _in_frozen(self) -> frozenset[str]:
        return frozen_users(self.config.frozen)

    @property
    def unseal(self) -> Unseal | None:
        """Opens sealed texts of the logs; None: they stay sealed."""
        keys = self.config.privacy.keys
        return None if keys is None else load_keys(keys).open_line

    # Champions.

    @cached_property
    def champion(self) -> Champion | None:
        """The champion as it was when the cycle began, whatever this cycle has done since."""
        if (version := self.plan["champion"]) is None:
            return None
        candidate = next((d.candidate for d in self.registry.decisions() if d.number == version), None)
        if candidate is None:
            raise JournalError(
                f"{self.folder.step('start')} names champion {version}, which the registry has none of: remove "
                f"{self.journal.folder} to begin anew"
            )
        return Champion(**candidate.hashes, version=version, fallback=None)

    def recent_champions(self) -> list[Rewriter]:
        """Policies of the champions of the last weeks but the present one."""
        now, recent = self.champion, self.history[-self.config.recovery.recent_weeks :]
        return [] if now is None else recent_champions(self.registry, recent, now.policy)

    def first_champion(self) -> Rewriter | Absent:
        """The first champion's policy, where it is not the present one."""
        if self.champion is None:
            return Absent("there is no champion yet")
        return first_champion(self.registry, self.champion.policy) or OF_NO_LINEAGE

    # What ranks, rewrites and judges.

    @cached_property
    def opener(self) -> RankerOpener:
        """Opens rankers as the settings name them."""
        return self.parts.opener(self.config.ranker, self.documents)

    @cached_property
    def present_ranker(self) -> PresentRanker:
        """What ranked the week: the champion's relevance model and spec."""
        if self.champion is None:
            return PresentRanker(self.configured_ranker)
        return open_present_ranker(self.champion, self.registry, self.opener)

    @cached_property
    def configured_ranker(self) -> Deployment:
        """What the settings name, under the champion's bundled model and spec, or a cold start and the packaged one."""
        return open_configured_ranker(self.config, self.champion, self.registry, self.opener)

    def deployment(self, relevance: str, spec: str) -> Deployment:
        """A relevance model and a spec of the registry, opened."""
        return load_deployment(self.registry, self.opener, relevance, spec)

    def policy(self, hash: str) -> Rewriter:
        """A policy of the registry."""
        return load_policy(self.registry, hash)

    @cached_property
    def judge(self) -> Judge:
        """Fitted on the labels that were there when the week began: what raters grade in it is to correct the judge."""
        config = self.config
        return fitted_judge(
            config.labels.absolute(),
            config.documents.absolute(),
            config.seed,
            config.ranker,
            config.pipeline.judge,
            first=self.plan.get("label_rows"),
        )

    @property
    def grading(self) -> GradingTask | None:
        """What raters are asked before the gate decides; None: nothing."""
        config = self.config
        if not config.pipeline.pairs_to_grade:
            return None
        raters = self.raters or LabelsFileRaters(self.folder.pairs_to_grade, config.labels, self.documents)
        return GradingTask(raters, config.pipeline.pairs_to_grade, self.week_seed)

    def quarantined(self, kind: Kind) -> set[str]:
        """Hashes of a kind that are in quarantine."""
        return {d.quarantined[1] for d in self.registry.decisions() if d.quarantined and d.quarantined[0] == kind}
