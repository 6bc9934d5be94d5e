"""Longitudinal simulation: months of weekly cycles, with the gate, never retrained, without a gate, without a rewriter.

The same users meet every arm, on common random numbers; a cycle sees its own arm's log only. Hidden intents are for measuring.
What two arms do in a week is done side by side, in processes of one thread each.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from corewrite.cycle import read_catalogue, write_catalogue, write_labels
from corewrite.cycle.config import CycleConfig
from corewrite.cycle.judges import fitted_judge
from corewrite.cycle.mined_week import MinedWindow
from corewrite.cycle.promotion import GatedPromotion
from corewrite.cycle.run import run_cycle
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.domain import Catalogue
from corewrite.domain.extras import from_extra
from corewrite.domain.settings import same_settings
from corewrite.domain.steps import Steps
from corewrite.domain.traffic_split import HOLDBACK
from corewrite.fusion import default_spec
from corewrite.logs import SatisfactionThresholds
from corewrite.relevance import Judge, cold_start
from corewrite.simulation.export import write_log
from corewrite.simulation.raters import write_descriptions
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import World, make_world
from corewrite.storage.durable import naming, whole_file
from corewrite.storage.journal import write_json
from corewrite.studies.engine import OnePolicyEngine, assign_arm
from corewrite.studies.layout import FIRST_WEEK, week_name
from corewrite.studies.longitudinal.config import LongitudinalConfig
from corewrite.studies.longitudinal.layout import ARMS, LongitudinalLayout
from corewrite.studies.longitudinal.measures import WeeklyValue, count_endings, measure, week_rows
from corewrite.studies.longitudinal.production import Production, load_production
from corewrite.studies.platform import ratings
from corewrite.studies.raters import KeepingRaters, SimulatedRaters, read_descriptions
from corewrite.studies.side_by_side import processes
from corewrite.studies.ungated import UngatedPromotion, with_cheap_gate

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""For a process of the pool: what, and its arguments after settings and folder."""
_DECIDED = ("verdict", "reason", "failed", "mitigations", "mitigations_applied", "recovered", "alarms")


def run_longitudinal(config: LongitudinalConfig, folder: Path, *, steps: Steps) -> list[dict[str, Any]]:
    """Run the simulation, or go on with it; returns the rows of `weeks.json`.

    Args:
        config: Sizes and seed.
        folder: Where everything goes.
        steps: Shows progress.

    Raises:
        ValueError: the folder holds a run under other settings, or the gate rejected the first candidate.
    """
    run = _LongitudinalRun.begin(config, folder, steps)
    run.first_weeks()
    run.cycle("weekly", FIRST_WEEK - 1)
    run.first_champion()
    with processes(2) as pool:
        for week in range(FIRST_WEEK, FIRST_WEEK + config.weeks):
            if not run.layout.rows(week).is_file():
                begun = perf_counter()
                rows = run.serve(week, pool)
                for arm, decided in run.decide(week, pool).items():
                    rows[arm] |= decided
                for row in rows.values():
                    row["seconds"] = round(perf_counter() - begun, 1)
                write_json(run.layout.rows(week), rows)
    return run.rows()


@dataclass(eq=False)
class _LongitudinalRun:
    config: LongitudinalConfig
    layout: LongitudinalLayout
    steps: Steps
    world: World
    catalogue: Catalogue

    @classmethod
    def begin(cls, config: LongitudinalConfig, folder: Path, steps: Steps) -> "_LongitudinalRun":
        """Lay the platform's files down, unless they are there."""
        folder.mkdir(parents=True, exist_ok=True)
        layout = LongitudinalLayout(folder)
        written = layout.settings
        if written.is_file() and not same_settings(json.loads(written.read_text("utf-8")), config):
            raise ValueError(f"{folder} holds a run under other settings: give another folder with --out, or remove it")
        write_json(layout.settings, config.model_dump(mode="json"))
        layout.weeks.mkdir(exist_ok=True)
        with steps.step("build the platform"):
            if not layout.documents.is_file():
                write_catalogue(make_world(config.seeded_world).catalogue, layout.documents)
            return cls.open(config, folder, steps)

    @classmethod
    def open(cls, config: LongitudinalConfig, folder: Path, steps: Steps) -> "_LongitudinalRun":
        """The run whose files lie there."""
        layout = LongitudinalLayout(folder)
        return cls(config, layout, steps, make_world(config.seeded_world), read_catalogue(layout.documents))

    def first_weeks(self) -> None:
        """Two weeks of log without a rewriter, and raters' labels of the first."""
        cold = embedded_deployment(self.catalogue, cold_start(self.catalogue, seed=self.config.seed), default_spec())
        for week in range(FIRST_WEEK):
            if not self.layout.log("weekly", week).is_file():
                happened = self._traffic(week, Production(cold, None, ""), week_name(week))
                if week == 0:
                    self.rate(week, happened, cold, self.config.rated_searches)
                self._write_log(happened, "weekly", week)

    def rate(self, week: int, happened: Week, deployment: Deployment, searches: int) -> None:
        """Raters grade results of searches of a week; the labels file holds what they ever gave.

        From the same week on the judge is of these grades too, some of them on searches that it is asked about: it compares
        arms and candidates fairly, but its own level jumps in such a week.
        """
        write_labels(
            ratings(self.world, happened, deployment.cascade, searches),
            self.catalogue,
            self.layout.labels_of(week),
        )
        self.collect_labels()

    def collect_labels(self) -> None:
        """Put all that raters ever gave into the labels file."""
        given = [pq.read_table(path) for path in sorted(self.layout.weeks.glob("*-labels.parquet"))]
        with whole_file(self.layout.labels) as temporary:
            pq.write_table(pa.concat_tables(given), temporary)

    def cycle(self, arm: str, week: int) -> dict[str, Any]:
        """The arm's cycle on the week's log."""
        record: Mapping[str, Any] = run_cycle(
            self._cycle_config(arm),
            week_name(week),
            steps=self.steps,
            promotion=UngatedPromotion() if arm == "no_gate" else GatedPromotion(),
            raters=self._raters(arm, week),
        )
        return {k: record[k] for k in _DECIDED}

    def _raters(self, arm: str, week: int) -> KeepingRaters:
        """Raters of the pairs that the arm's cycle asks about: of the week, and of the frozen set out of the first weeks."""
        files = [self.layout.descriptions("weekly", w) for w in range(FIRST_WEEK)]
        own = self.layout.descriptions(arm, week)
        # In the week in which the arms part, the log of the one without a gate is the weekly arm's.
        files.append(own if own.is_file() else self.layout.descriptions("weekly", week))
        raters = SimulatedRaters(self.world, read_descriptions(files))
        return KeepingRaters(raters, self.catalogue, self.layout.graded_pairs(arm, week))

    def decide(self, week: int, pool: Executor) -> dict[str, dict[str, Any]]:
        """The cycles of the week, by arm; while the arms are one, the one without a gate is computed only if they part."""
        self.collect_labels()  # the grades of the last week's pairs are this week's labels
        together = self.layout.together
        if together:
            self.layout.branch()
        found = self._cycles(pool, ("weekly",) if together else ("weekly", "no_gate"), week)
        if together and found["weekly"]["verdict"] == "promote" and not found["weekly"]["alarms"]:
            self.layout.join()
            return {**found, "no_gate": found["weekly"]}
        if together:
            found |= self._cycles(pool, ("no_gate",), week)
        return found

    def _cycles(self, pool: Executor, arms: Sequence[str], week: int) -> dict[str, dict[str, Any]]:
        title = f"{week_name(week)}, cycle of {', '.join(arms)}"
        return dict(zip(arms, self._side_by_side(pool, title, [(_cycle, (arm, week)) for arm in arms]), strict=True))

    def _side_by_side(self, pool: Executor, title: str, wanted: Sequence[_Call]) -> list[Any]:
        """What the calls give, in their order."""
        with self.steps.step(title) as progress:
            settings = self.config.model_dump_json()
            running = [pool.submit(do, settings, self.layout.folder, *given) for do, given in wanted]
            for done, _ in enumerate(as_completed(running), 1):
                progress(done, len(running))
            return [future.result() for future in running]

    def first_champion(self) -> None:
        """Put the first candidate into production also where the gate held it back: the simulation needs a beginning."""
        registry = self.layout.registry("weekly")
        if registry.champion() is None:
            held = next(d for d in reversed(registry.decisions()) if d.candidate is not None)
            assert held.candidate is not None
            registry.promote(
                held.candidate,
                expected=None,
                reason=f"first champion, by the simulation and against the gate ({held.reason})",
                evidence={"override": True, "by": "corewrite simulate"},
            )

    def serve(self, week: int, pool: Executor) -> dict[str, dict[str, Any]]:
        """All arms' traffic of a week and what was measured of it."""
        production = self._production(week)
        like: dict[tuple[str, str, str], str] = {}  # arms that serve the same see the same, and are computed once
        for arm in (HOLDBACK, "never", "weekly", "no_gate"):
            like.setdefault(production[arm].key, arm)
        with self.steps.step(f"{week_name(week)}, {HOLDBACK}"):
            happened = self.serve_arm(HOLDBACK, week)
            searches = self._some(happened)
        every = self.config.rated_every
        if every and (week - FIRST_WEEK + 1) % every == 0:
            with self.steps.step(f"{week_name(week)}, raters"):
                self.rate(week, happened, production[HOLDBACK].deployment, self.config.rated_again)
        # Nothing that is measured needs an arm's traffic: both are asked for at once, the longer ones first.
        wanted: list[_Call] = [(_serve_arm, (arm, week)) for arm in like.values() if arm != HOLDBACK]
        wanted += [(_measure_arm, (arm, week, searches)) for arm in like.values()]
        found = self._side_by_side(pool, f"{week_name(week)}, traffic of {', '.join(like.values())}", wanted)
        measured = dict(zip(like.values(), found[-len(like) :], strict=True))
        for arm in ARMS:
            first = like[production[arm].key]
            if arm != first:
                _copy(self.layout.users(first, week), self.layout.users(arm, week))
            if arm != first and self.layout.has_log(arm):
                _copy(self.layout.log(first, week), self.layout.log(arm, week))
                _copy(self.layout.descriptions(first, week), self.layout.descriptions(arm, week))
        with self.steps.step("judge"):
            return self._rows(week, searches, production, {arm: measured[like[p.key]] for arm, p in production.items()})

    def serve_arm(self, arm: str, week: int) -> Week:
        """One arm's traffic of a week, its log and how its users' searches ended."""
        production = self._production(week)[arm]
        happened = self._traffic(week, production, f"{week_name(week)}, {arm}")
        with self.steps.step("read the log"):
            log = self._write_log(happened, arm, week)
            with whole_file(self.layout.users(arm, week)) as temporary:
                pq.write_table(count_endings(log, production.deployment, self._thresholds), temporary)
        return happened

    def rows(self) -> list[dict[str, Any]]:
        """Rows of every week and arm."""
        found = []
        for week in range(FIRST_WEEK, FIRST_WEEK + self.config.weeks):
            of_week = json.loads(self.layout.rows(week).read_text("utf-8"))
            found += [{"week": week - FIRST_WEEK + 1, "arm": arm, **of_week[arm]} for arm in ARMS]
        return found

    def _traffic(self, week: int, production: Production, title: str) -> Week:
        engine = OnePolicyEngine(production.deployment.cascade, production.policy, self.config.pipeline.max_new_tokens)
        with self.steps.step(title) as progress:
            return simulate_week(
                self.world,
                self.config.traffic,
                engine,
                week=week,
                sessions=self.config.sessions,
                assign_arm=assign_arm,
                progress=progress,
            )

    def _write_log(self, happened: Week, arm: str, week: int) -> Path:
        log = self.layout.log(arm, week)
        log.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(log) as temporary:
            write_log(happened, self.catalogue, temporary)
        write_descriptions(self.world, happened, self.layout.descriptions(arm, week))
        return log

    @property
    def _thresholds(self) -> SatisfactionThresholds | None:
        return MinedWindow(self.layout.run("weekly").window(week_name(0))).thresholds

    def _production(self, week: int) -> dict[str, Production]:
        return load_production(self.layout, self.catalogue, week)

    def _some(self, happened: Week) -> Week:
        """Searches of a week that are measured, the same for all arms."""
        step = max(1, len(happened) // self.config.measured_searches)
        return happened.take(np.arange(0, len(happened), step)[: self.config.measured_searches])

    def measure_arm(self, arm: str, week: int, searches: Week) -> WeeklyValue:
        """Truth and lists of the searches, reward on the gate users' instances of the week before."""
        window = MinedWindow(self.layout.run("weekly").window(week_name(week - 1)))
        return measure(
            self.world,
            self._production(week)[arm],
            searches,
            window.gate_instances()[: self.config.measured_searches],
            max_new_tokens=self.config.pipeline.max_new_tokens,
        )

    def _rows(
        self, week: int, searches: Week, production: Mapping[str, Production], measured: Mapping[str, WeeklyValue]
    ) -> dict[str, dict[str, Any]]:
        with naming(self.layout.weeks):
            truth = {arm: measured[arm].ndcg10 for arm in production}
            pq.write_table(pa.table({"user_id": list(searches.user_ids), **truth}), self.layout.ndcg(week))
        endings = {arm: pq.read_table(self.layout.users(arm, week)) for arm in production}
        return week_rows(searches, production, measured, endings, self._judge)

    @property
    def _judge(self) -> Judge:
        return fitted_judge(self.layout.labels, self.layout.documents, self.config.seed)

    def _cycle_config(self, arm: str) -> CycleConfig:
        return CycleConfig(
            run=self.layout.run(arm).root,
            documents=self.layout.documents,
            logs=self.layout.logs(arm),
            labels=self.layout.labels,
            frozen=self.layout.frozen(arm),
            seed=self.config.seed,
            refresh=self.config.refresh,
            recovery=self.config.recovery,
            pipeline=with_cheap_gate(self.config.pipeline) if arm == "no_gate" else self.config.pipeline,
        )


@cache
def _of_process(settings: str, folder: Path) -> _LongitudinalRun:
    """The run as a process of the pool knows them: its world and catalogue are made once."""
    with from_extra("train", "a process is kept to one core by threadpoolctl"):
        from threadpoolctl import threadpool_limits
    torch.set_num_threads(1)
    threadpool_limits(1)
    return _LongitudinalRun.open(LongitudinalConfig.model_validate_json(settings), folder, _Unseen())


def _cycle(settings: str, folder: Path, arm: str, week: int) -> dict[str, Any]:
    return _of_process(settings, folder).cycle(arm, week)


def _serve_arm(settings: str, folder: Path, arm: str, week: int) -> None:
    _of_process(settings, folder).serve_arm(arm, week)


def _measure_arm(settings: str, folder: Path, arm: str, week: int, searches: Week) -> WeeklyValue:
    return _of_process(settings, folder).measure_arm(arm, week, searches)


class _Unseen:
    """Steps of a process without a terminal."""

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: None


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)
