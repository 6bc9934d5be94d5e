"""A finished week of the cycle: its champion, what it ranks under, its searches."""

from corewrite.cycle.config import CycleConfig
from corewrite.cycle.judges import fitted_judge
from corewrite.cycle.mined_week import MinedWindow
from corewrite.cycle.records import CycleJournal
from corewrite.cycle.status import load_history
from corewrite.cycle.users import frozen_users
from corewrite.cycle.weeks import CycleError
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.documents import open_documents
from corewrite.deployment.inputs import check_inputs
from corewrite.deployment.load import load_deployment
from corewrite.deployment.open import RankerOpener
from corewrite.registry import Champion, Registry
from corewrite.storage.run_layout import RunLayout


class FinishedWeek:
    """The champion, what it ranks under, and the searches of a finished week.

    Attributes:
        config: Settings of the cycle.
        registry: Of its run folder.
        history: Finished cycles, oldest first.
        champion: What is in production now.
        week: Name of the week.
        window: What its log gave.
        documents: What is ranked.
        deployment: The champion's relevance model and spec.
        judge: Fitted on the raters' labels.
    """

    def __init__(self, config: CycleConfig, week: str | None) -> None:
        """Read it.

        Args:
            config: Settings of the cycle.
            week: Its name; None: the last finished one.

        Raises:
            CycleError: no champion, or no such week.
        """
        self.config = config
        self.registry = Registry(RunLayout(config.run).registry)
        self.history = load_history(config.run)
        champion, weeks = self.registry.champion(), [r["week"] for r in self.history]
        if champion is None or not weeks:
            raise CycleError(f"{config.run} has no champion or no finished cycle: run `corewrite cycle run` first")
        self.champion: Champion = champion
        self.week = week or weeks[-1]
        if self.week not in weeks:
            raise CycleError(f"{self.week!r} is no finished week of {config.run}; there are {', '.join(weeks[-5:])}")
        self.window = MinedWindow(RunLayout(config.run).window(self.week), frozen_users(config.frozen))
        check_inputs(documents=config.documents, labels=config.labels)
        self.documents = open_documents(config.documents, config.ranker)
        opener = RankerOpener(config.ranker, self.documents)
        self.deployment: Deployment = load_deployment(self.registry, opener, champion.relevance, champion.spec)
        self.judge = fitted_judge(
            config.labels.absolute(), config.documents.absolute(), config.seed, config.ranker, config.pipeline.judge
        )

    @property
    def journal(self) -> CycleJournal:
        """Of the week's cycle."""
        return CycleJournal(self.config.run, self.week)
