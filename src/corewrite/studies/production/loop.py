"""Three weeks of a team in production, nothing handed over by hand: served over HTTP, logged, mined, trained, gated, promoted.

Week 1 is a log of the engine as it was before there was a rewriter; its cycle makes the first champion. Week 2 is served by
it to simulated users, who click and leave; that log is mined by the next cycle, under a better version of the ranker. Week 3 is
served by what the weeks before taught, with a rollout under way where the second cycle promoted; its cycle meets a broken
version of the ranker.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corewrite.cycle import PipelineConfig, write_catalogue, write_labels
from corewrite.cycle.config import CycleConfig, RefreshConfig
from corewrite.cycle.mined_week import first_thresholds
from corewrite.cycle.promotion import GatedPromotion
from corewrite.cycle.records import WeekRecord
from corewrite.cycle.run import run_cycle
from corewrite.cycle.steps.rollout import load_rollout, rollout_step, stage_searches
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.replay import LogReplay, replay_log
from corewrite.deployment.settings import RankerSettings
from corewrite.domain.steps import Steps
from corewrite.domain.traffic_split import assign_arm, is_holdback_user
from corewrite.experiment import LaunchResult, RolloutConfig, RolloutDecision, read_launch
from corewrite.fusion import load_spec
from corewrite.logs import find_outcomes, read_log
from corewrite.logs.files import log_files
from corewrite.logs.outcomes import Outcomes
from corewrite.registry import Registry
from corewrite.relevance import cold_start
from corewrite.search import top_overlap
from corewrite.serving.settings import ServeConfig
from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.export import write_log
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import World
from corewrite.storage.run_layout import RunLayout
from corewrite.studies.engine import NoRewriter
from corewrite.studies.platform import ratings
from corewrite.studies.production.users import HttpUsers, served
from corewrite.studies.ungated import UngatedPromotion

CONTROL, TREATMENT = "none", "all_stages"
HOLDBACK = 0.1


@dataclass(frozen=True)
class LoopSize:
    """How much happens.

    Attributes:
        sessions: A week.
        graded: Searches whose results raters grade.
        first_pipeline: Settings of week 1's cycle.
        pipeline: Settings of the later cycles.
        refresh: The same.
        frozen_queries: The same.
        rollout: Of what the second cycle promotes.
        gated: Whether the first candidate needs the gate; of so few users as a test has, a gate can only hold.
    """

    sessions: int
    graded: int
    first_pipeline: PipelineConfig
    pipeline: PipelineConfig
    refresh: RefreshConfig
    frozen_queries: int
    rollout: RolloutConfig
    gated: bool


@dataclass(frozen=True, eq=False)
class ServedWeek:
    """A week at the server.

    Attributes:
        number: Of the week.
        version: Of the ranker that the server's settings named.
        happened: What users really did.
        arms: Arm of each user, as the server's answers said.
        log: The server's log, with the events.
    """

    number: int
    version: str
    happened: Week
    arms: Mapping[str, str]
    log: Path


class Team:
    """A team's files, and what it runs on them every week."""

    def __init__(
        self, folder: Path, world: World, rankers: Mapping[str, RankerSettings], spec: Path, size: LoopSize, steps: Steps
    ) -> None:
        """Write what a team has.

        Args:
            folder: Of the team.
            world: The platform.
            rankers: What ranks, by version: "1", "2" (better) and "broken".
            spec: The fusion spec.
            size: How much happens.
            steps: Shows progress.
        """
        self.folder, self.world, self._size, self._steps = folder, world, size, steps
        self._rankers = {name: one.model_copy(update={"spec": spec}) for name, one in rankers.items()}
        self._spec = spec
        folder.mkdir(parents=True, exist_ok=True)
        write_catalogue(world.catalogue, folder / "documents.parquet")

    @property
    def registry(self) -> Registry:
        """Of the run folder."""
        return Registry(RunLayout(self.folder / "run").registry)

    def opener(self, version: str) -> RankerOpener:
        """Opens rankers under the settings of a version."""
        return RankerOpener(self._rankers[version], self.world.catalogue)

    def cycle_config(self, version: str, week: int) -> CycleConfig:
        """Settings of a week's cycle."""
        size = self._size
        return CycleConfig(
            run=self.folder / "run",
            documents=self.folder / "documents.parquet",
            logs=self.folder / "logs",
            labels=self.folder / "labels.parquet",
            frozen=self.folder / "kept" / "frozen.parquet",
            ranker=self._rankers[version],
            frozen_queries=size.frozen_queries,
            refresh=size.refresh,
            pipeline=size.first_pipeline if week == 1 else size.pipeline,
            rollout=size.rollout,
        )

    def serve_config(self, version: str, week: int) -> ServeConfig:
        """Settings of the server; the machine has other things to do, so that no rewrite is late."""
        late = {"recall": 20_000, "rawrank": 20_000, "finerank": 20_000}
        return ServeConfig.model_validate(
            {
                "registry": RunLayout(self.folder / "run").registry,
                "documents": self.folder / "documents.parquet",
                "ranker": self._rankers[version],
                "deadlines": late,
                "arms": {"holdback": HOLDBACK, CONTROL: 0.5, TREATMENT: 0.5},
                "log": {
                    "folder": self.folder / "logs" / f"w{week}",
                    "insecure": True,
                    "query_text": True,
                    "counterfactual_share": 1.0,
                },
            }
        )

    def before_the_rewriter(self, version: str) -> None:
        """Two weeks of log of the engine as it was, and raters' grades."""
        catalogue, settings = self.world.catalogue, self._rankers[version]
        model = cold_start(catalogue, seed=0) if settings.needs_embedder else None
        cascade = Deployment(self.opener(version).build(model), load_spec(self._spec)).cascade
        for week in range(2):
            with self._steps.step(f"week {week}, before there is a rewriter") as progress:
                happened = simulate_week(
                    self.world, TrafficConfig(), NoRewriter(cascade), week=week, sessions=self._size.sessions, progress=progress
                )
                write_log(happened, catalogue, self.folder / "logs" / f"w{week}.ndjson")
                if week == 0:
                    write_labels(
                        ratings(self.world, happened, cascade, self._size.graded), catalogue, self.folder / "labels.parquet"
                    )

    def cycle(self, version: str, week: int) -> WeekRecord:
        """Run a week's cycle."""
        promotion = UngatedPromotion() if week == 1 and not self._size.gated else GatedPromotion()
        return run_cycle(self.cycle_config(version, week), f"w{week}", steps=self._steps, promotion=promotion)

    def live_week(self, version: str, number: int) -> ServedWeek:
        """A week of simulated users at the server."""
        config = self.serve_config(version, number)
        with self._steps.step(f"week {number}, served over HTTP") as progress, served(config) as url:
            users = HttpUsers(url, self.world.catalogue)
            happened = simulate_week(
                self.world,
                TrafficConfig(),
                users,
                week=number,
                sessions=self._size.sessions,
                assign_arm=lambda user: assign_arm(user, config.arms),
                progress=progress,
            )
            users.tell(happened)
            users.close()
        assert config.log.folder is not None
        return ServedWeek(number, version, happened, users.arms, config.log.folder)

    def check_rollout(self, week: ServedWeek) -> RolloutDecision | None:
        """Take a look at the rollout under way on a week's log; None where none is."""
        config = self.cycle_config(week.version, week.number)
        found = load_rollout(config.run)
        if found is None or found[0].status != "running":
            return None
        searches = stage_searches(config, week.log)
        end = float(week.happened.timestamps.max())
        # The rollout goes by the clock of the promote; the simulated users have a clock of their own.
        table = searches.table.set_column(
            searches.table.schema.get_field_index("timestamp"),
            "timestamp",
            [np.asarray(searches.table["timestamp"]) - float(week.happened.timestamps.min()) + found[0].since],
        )
        until = found[0].since + end - float(week.happened.timestamps.min())
        return rollout_step(config.run, table, observation=f"week {week.number}", until=until, lost_share=searches.lost_share)

    def outcomes(self, week: ServedWeek) -> Outcomes:
        """How the searches of a week ended, from the served log, by the rules of the cycle."""
        return find_outcomes(
            read_log(log_files(week.log)), overlap=self._overlap(week), thresholds=first_thresholds(self.folder / "run")
        )

    def own_outcomes(self, week: ServedWeek) -> Outcomes:
        """The same from the simulator's own log of the week."""
        file = self.folder / "own" / f"w{week.number}.ndjson"
        write_log(week.happened, self.world.catalogue, file)
        return find_outcomes(read_log(file), overlap=self._overlap(week), thresholds=first_thresholds(self.folder / "run"))

    def replay(self, week: ServedWeek) -> LogReplay:
        """Recompute what was served."""
        return replay_log(week.log, self.registry, self.opener(week.version))

    def _overlap(self, week: ServedWeek) -> Any:
        model = cold_start(self.world.catalogue, seed=0) if self._rankers[week.version].needs_embedder else None
        return top_overlap(Deployment(self.opener(week.version).build(model), load_spec(self._spec)).cascade)


@dataclass(frozen=True, eq=False)
class Loop:
    """What three weeks left.

    Attributes:
        team: Whose.
        cycles: Records of the cycles of weeks 1 to 3.
        weeks: Weeks 2 and 3 at the server.
        rollout: What the look at week 3 led to; None where no rollout was under way.
    """

    team: Team
    cycles: tuple[WeekRecord, WeekRecord, WeekRecord]
    weeks: tuple[ServedWeek, ServedWeek]
    rollout: RolloutDecision | None


def run_loop(team: Team) -> Loop:
    """Three weeks."""
    team.before_the_rewriter("1")
    first = team.cycle("1", 1)
    second_week = team.live_week("1", 2)
    second = team.cycle("2", 2)
    third_week = team.live_week("2", 3)
    rollout = team.check_rollout(third_week)
    third = team.cycle("broken", 3)
    return Loop(team, (first, second, third), (second_week, third_week), rollout)


@dataclass(frozen=True)
class WeekFigures:
    """What a served log must be right in.

    Attributes:
        searches: How many.
        holdback_exact: Whether the users logged as held back are exactly those who are to be.
        impacted: Impacted searches and searches of each arm, by arm.
        same_outcomes: Share of searches that end alike in the served log and in the simulator's own.
        cqr, give_up: Rate from the served log and from the simulator's own.
        replayed: Share of factors within 1e-6.
        same_lists: Share of lists that are recomputed alike.
    """

    searches: int
    holdback_exact: bool
    impacted: Mapping[str, tuple[int, int]]
    same_outcomes: float
    cqr: tuple[float, float]
    give_up: tuple[float, float]
    replayed: float
    same_lists: float

    def as_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return asdict(self)


def week_figures(team: Team, week: ServedWeek) -> WeekFigures:
    """Check a week's log against what happened."""
    log, own, replayed = team.outcomes(week), team.own_outcomes(week), team.replay(week)
    wanted = {user for user in week.happened.user_ids if is_holdback_user(user, HOLDBACK)}
    answered = {user for user, arm in week.arms.items() if arm == "holdback"}
    hashed = {user for user, arm in zip(log.user_id, log.arm, strict=True) if arm == "holdback"}
    impacted = {}
    for arm in (CONTROL, TREATMENT):
        told = [x for x, a in zip(log.impacted.tolist(), log.arm, strict=True) if a == arm]
        impacted[arm] = (sum(x is not None and bool(x) for x in told), len([x for x in told if x is not None]))
    ends = dict(zip(own.query_id, own.outcome, strict=True))
    same = float(np.mean([ends.get(q) == o for q, o in zip(log.query_id, log.outcome, strict=True)]))
    rates = [x.shares() for x in (log, own)]
    return WeekFigures(
        len(log),
        answered == wanted and len(hashed) == len(wanted),
        impacted,
        same,
        (rates[0]["changed_unsatisfied"], rates[1]["changed_unsatisfied"]),
        (rates[0]["gave_up"], rates[1]["gave_up"]),
        replayed.factors.share_agreeing,
        replayed.same_lists / max(1, replayed.searches),
    )


def build_launch(team: Team, week: ServedWeek) -> LaunchResult:
    """The launch as its served log reads."""
    return read_launch(f"week {week.number}", team.outcomes(week).to_arrow(), control=CONTROL, treatment=TREATMENT, share=0.5)
