"""One seed's platform of the gate benchmark: world, logs, mined windows, relevance model, judge, and the week of truth."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from corewrite.cycle import read_catalogue, read_labels, write_catalogue, write_labels
from corewrite.cycle.mined_week import MinedWindow, build_impressions, mine_week
from corewrite.cycle.steps.fit_relevance import refit
from corewrite.cycle.steps.gate_searches import gate_searches
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.domain import Catalogue, Query, TrainingInstance
from corewrite.domain.steps import Steps
from corewrite.evaluation.searches import GateSearches
from corewrite.fusion import default_spec
from corewrite.registry import Registry
from corewrite.relevance import LateInteraction, TreeJudge, cold_start
from corewrite.search import top_overlap
from corewrite.simulation.export import write_log
from corewrite.simulation.raters import write_descriptions
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import World, make_world
from corewrite.storage.durable import make_folder, whole_file
from corewrite.storage.journal import Journal
from corewrite.storage.run_layout import RunLayout
from corewrite.studies.engine import NoRewriter, assign_arm
from corewrite.studies.gate_benchmark.config import GateBenchConfig
from corewrite.studies.gate_benchmark.families import CorpusStats
from corewrite.studies.gate_benchmark.outputs import RankedOutputs, Where
from corewrite.studies.gate_benchmark.remember import RememberingJudge
from corewrite.studies.gate_benchmark.trainings import (
    SOUND,
    RankerVariant,
)
from corewrite.studies.layout import week_name
from corewrite.studies.platform import ratings
from corewrite.studies.raters import SimulatedRaters, read_descriptions

_TRUTH_WEEK = 2


@dataclass(eq=False)
class BenchmarkPlatform:
    """One seed's platform; costly parts are computed on first use, and read from then on.

    Attributes:
        config: Sizes.
        seed: Of the platform.
        folder: Where its files lie.
        steps: Shows progress.
    """

    config: GateBenchConfig
    seed: int
    folder: Path
    steps: Steps
    _deployed: dict[RankerVariant, RankedOutputs] = field(default_factory=dict, repr=False)

    @cached_property
    def world(self) -> World:
        """Truth, for simulating and measuring only."""
        return make_world(self.config.of(self.seed).seeded_world)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The documents."""
        file = self.folder / "documents.parquet"
        write_once(file, lambda path: write_catalogue(self.world.catalogue, path))
        return read_catalogue(file)

    @property
    def layout(self) -> RunLayout:
        """Where the environment keeps what a run keeps too."""
        return RunLayout(self.folder)

    @cached_property
    def registry(self) -> Registry:
        """Policies and the relevance model."""
        make_folder(self.folder)
        return Registry(self.layout.registry)

    @cached_property
    def journal(self) -> Journal:
        """What was made, and its hash in the registry."""
        return Journal(self.folder / "journal")

    def window(self, week: int) -> MinedWindow:
        """A week of log without a rewriter, mined; week 0 gives raters' labels too."""
        if (mined := MinedWindow(folder := self.layout.window(week_name(week)))).is_there:
            return mined
        earlier = None if week == 0 else self.window(week - 1)
        deployment = self._deployment_before(week)
        platform = self.config.of(self.seed)
        happened = self._traffic(week, platform.sessions, deployment)
        if week == 0:
            graded = ratings(self.world, happened, deployment.cascade, platform.rated_searches)
            write_once(self.folder / "labels.parquet", lambda path: write_labels(graded, self.catalogue, path))
        log = self.folder / "logs" / f"{week_name(week)}.ndjson.gz"
        write_once(log, lambda path: write_log(happened, self.catalogue, path))
        write_descriptions(self.world, happened, self._descriptions(week))
        with self.steps.step(f"seed {self.seed}: mine {week_name(week)}"):
            return mine_week(
                [log],
                self.catalogue,
                folder,
                overlap=top_overlap(deployment.cascade),
                thresholds=None if earlier is None else earlier.thresholds,
                seed=self.seed,
                rejects=folder.with_name("rejects.ndjson"),
            )

    def _descriptions(self, week: int) -> Path:
        return self.folder / "logs" / f"{week_name(week)}.descriptions.parquet"

    @cached_property
    def raters(self) -> SimulatedRaters:
        """Who grade what the gate asks about."""
        for week in (0, 1):
            self.window(week)
            if not (file := self._descriptions(week)).is_file():  # a folder of an earlier version
                happened = self._traffic(week, self.config.of(self.seed).sessions, self._deployment_before(week))
                write_descriptions(self.world, happened, file)
        return SimulatedRaters(self.world, read_descriptions([self._descriptions(week) for week in (0, 1)]))

    def _deployment_before(self, week: int) -> Deployment:
        """What ranked a week of log."""
        if week > 0:
            return self.deployed(SOUND).deployment
        return embedded_deployment(self.catalogue, cold_start(self.catalogue, seed=self.seed), default_spec())

    def _traffic(self, week: int, sessions: int, deployment: Deployment) -> Week:
        with self.steps.step(f"seed {self.seed}: searches of {week_name(week)}") as progress:
            return simulate_week(
                self.world,
                self.config.platform.traffic,
                NoRewriter(deployment.cascade),
                week=week,
                sessions=sessions,
                assign_arm=assign_arm,
                progress=progress,
            )

    @cached_property
    def _model(self) -> LateInteraction:
        def fitted() -> Mapping[str, Any]:
            seen = build_impressions([self.window(0)], self.catalogue)
            with self.steps.step(f"seed {self.seed}: fit the relevance model") as progress:
                model = refit(self.catalogue, seen, self.seed, progress)
            return {"hash": self.registry.save("relevance", model.save, {"model_hash": model.model_hash}).hash}

        hash = self.journal.once("relevance", fitted)["hash"]
        self.registry.verify("relevance", hash)
        return LateInteraction.load(self.registry.path(self.registry.artifact("relevance", hash)))

    @cached_property
    def judge(self) -> TreeJudge:
        """The gate's judge."""
        self.window(0)
        with self.steps.step(f"seed {self.seed}: fit the judge"):
            judge = RememberingJudge(self.catalogue)
            judge.fit(read_labels(self.folder / "labels.parquet", self.catalogue), seed=self.seed)
        return judge

    @cached_property
    def corpus(self) -> CorpusStats:
        """Statistics of queries and titles."""
        return CorpusStats.of(self._frequency, self.catalogue)

    @cached_property
    def _frequency(self) -> Counter[str]:
        return self.window(0).frequency() + self.window(1).frequency()

    @cached_property
    def searches(self) -> GateSearches:
        """The gate's searches: gate users' searches of the last week of log; those of the week before are the frozen set."""
        windows = [self.window(0), self.window(1)]
        frozen = windows[0].for_gate(self.config.frozen_searches)
        return gate_searches(windows, self.catalogue, frozen, limit=self.config.gate_searches, seed=self.seed)

    @property
    def instances(self) -> list[TrainingInstance]:
        """All searches of the gate."""
        return self.searches.instances

    @cached_property
    def truth_week(self) -> Week:
        """Searches of the week after the log: for measuring only."""
        week = self._traffic(_TRUTH_WEEK, self.config.truth_sessions, self.deployed(SOUND).deployment)
        if len(week) < self.config.truth_searches:
            raise ValueError(
                f"{self.config.truth_sessions} sessions gave {len(week)} searches, truth needs {self.config.truth_searches}: "
                "raise truth_sessions"
            )
        rng = np.random.default_rng([self.seed, 43])
        return week.take(np.sort(rng.choice(len(week), self.config.truth_searches, replace=False)))

    def queries(self, where: Where) -> Sequence[Query]:
        """The gate's searches, those of the week after, or searches with an instruction planted."""
        if where == "truth":
            return self.truth_week.queries
        if where == "canaries":
            return self.searches.canaries
        return self.searches.queries

    def deployed(self, under: RankerVariant) -> RankedOutputs:
        """What ranks and rewards. Of the exploitable ones only the last asked for is kept: each fills a table of scores."""
        if under not in self._deployed:
            for other in [u for u in self._deployed if u != SOUND]:
                del self._deployed[other]
            self._deployed[under] = RankedOutputs(
                embedded_deployment(self.catalogue, under.model(self._model), under.spec()),
                self.queries,
                lambda: self.instances,
            )
        return self._deployed[under]


def write_once(file: Path, write: Callable[[Path], None]) -> None:
    """Write a file whole, or not at all; one that is there stays."""
    if not file.is_file():
        make_folder(file.parent)
        with whole_file(file) as temporary:
            write(temporary)
