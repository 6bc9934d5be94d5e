"""Months of weekly cycles on the simulated platform: with the gate, never retrained, without a gate, without a rewriter.

The same users meet every arm, on common random numbers; a cycle sees its own arm's log only. Hidden intents are for measuring.
What two arms do in a week is done side by side, in processes of one thread each.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from corewrite.cycle import read_catalogue, read_window, write_catalogue, write_labels
from corewrite.cycle.config import CycleConfig
from corewrite.cycle.judges import fitted_judge
from corewrite.cycle.mined_week import MinedWindow
from corewrite.cycle.promotion import GatedPromotion
from corewrite.cycle.records import WeekRecord
from corewrite.cycle.run import run_cycle
from corewrite.cycle.status import load_history
from corewrite.cycle.steps.fit_relevance import Refit, refit
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.deployment.load import load_deployment, load_policy
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.served import fused_lists, log_rewards, served_rewrites
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Catalogue, Outcome
from corewrite.domain.extras import from_extra
from corewrite.domain.settings import same_settings
from corewrite.domain.steps import Steps
from corewrite.domain.traffic_split import HOLDBACK
from corewrite.fusion import FusionSpec, default_spec
from corewrite.logs import SatisfactionThresholds
from corewrite.registry import Registry
from corewrite.relevance import Judge, LateInteraction, cold_start
from corewrite.relevance.late_interaction import SCALARS
from corewrite.rewriter import Rewriter
from corewrite.search import top_overlap
from corewrite.simulation.export import write_log
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import World, make_world
from corewrite.storage.durable import naming, whole_file
from corewrite.storage.journal import write_json
from corewrite.storage.run_layout import RunLayout
from corewrite.studies.engine import OnePolicyEngine, assign_arm
from corewrite.studies.longitudinal.config import MonthsConfig
from corewrite.studies.platform import ratings
from corewrite.studies.side_by_side import processes
from corewrite.studies.truth import lists_ndcg10
from corewrite.studies.ungated import UngatedPromotion

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""For a process of the pool: what, and its arguments after settings and folder."""
ARMS = ("weekly", "never", "no_gate", HOLDBACK)
FIRST_WEEK = 2
"""Number of the first week with a champion: weeks 0 and 1 are the log it comes from."""
_DECIDED = ("verdict", "reason", "failed", "mitigations", "mitigations_applied", "recovered", "alarms")


@dataclass(frozen=True, eq=False)
class Production:
    """What serves an arm in a week.

    Attributes:
        deployment: Relevance model and spec.
        policy: The rewriter, or None.
        name: Hash of the policy, "" without one.
        key: Equal where two arms serve the same.
    """

    deployment: Deployment
    policy: Rewriter | None
    name: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Of policy, relevance model and spec."""
        return self.name, self.deployment.model_hash, self.deployment.spec.spec_hash


@dataclass(frozen=True, eq=False)
class WeeklyValue:
    """What an arm's production is worth in a week.

    Attributes:
        ndcg10: Against hidden intents, float64 [searches].
        lists: What it shows, rows int64 [searches, 10].
        reward: Mean log R, nats.
        words: Mean length of what is searched for, words.
    """

    ndcg10: FloatArray
    lists: IntArray
    reward: float
    words: float


def week_name(week: int) -> str:
    """Of a log, in the order of time."""
    return f"week-{week:02d}"


def run_months(config: MonthsConfig, folder: Path, *, steps: Steps) -> list[dict[str, Any]]:
    """Run the months, or go on with them; returns the rows of `weeks.json`.

    Args:
        config: Sizes and seed.
        folder: Where everything goes.
        steps: Shows progress.

    Raises:
        ValueError: the folder holds a run under other settings, or the gate rejected the first candidate.
    """
    months = _Months.begin(config, folder, steps)
    months.first_weeks()
    months.put_spec(FIRST_WEEK - 1)
    months.cycle("weekly", FIRST_WEEK - 1)
    months.first_champion()
    with processes(2) as pool:
        for week in range(FIRST_WEEK, FIRST_WEEK + config.weeks):
            if not months.row_file(week).is_file():
                begun = perf_counter()
                months.put_spec(week)
                rows = months.serve(week, pool)
                for arm, decided in months.decide(week, pool).items():
                    rows[arm] |= decided
                for row in rows.values():
                    row["seconds"] = round(perf_counter() - begun, 1)
                write_json(months.row_file(week), rows)
    return months.rows()


@dataclass(eq=False)
class _Months:
    config: MonthsConfig
    folder: Path
    steps: Steps
    world: World
    catalogue: Catalogue

    @classmethod
    def begin(cls, config: MonthsConfig, folder: Path, steps: Steps) -> "_Months":
        """Lay the platform's files down, unless they are there."""
        folder.mkdir(parents=True, exist_ok=True)
        settings, documents = folder / "settings.json", folder / "documents.parquet"
        if settings.is_file() and not same_settings(json.loads(settings.read_text("utf-8")), config):
            raise ValueError(f"{folder} holds a run under other settings: give another folder with --out, or remove it")
        write_json(settings, config.model_dump(mode="json"))
        (folder / "weeks").mkdir(exist_ok=True)
        with steps.step("build the platform"):
            if not documents.is_file():
                write_catalogue(make_world(config.seeded_world).catalogue, documents)
            return cls.open(config, folder, steps)

    @classmethod
    def open(cls, config: MonthsConfig, folder: Path, steps: Steps) -> "_Months":
        """The months whose files lie there."""
        return cls(config, folder, steps, make_world(config.seeded_world), read_catalogue(folder / "documents.parquet"))

    def first_weeks(self) -> None:
        """Two weeks of log without a rewriter, and raters' labels of the first."""
        cold = embedded_deployment(self.catalogue, cold_start(self.catalogue, seed=self.config.seed), default_spec())
        for week in range(FIRST_WEEK):
            if not self._log("weekly", week).is_file():
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
            self.folder / "weeks" / f"{week:02d}-labels.parquet",
        )
        given = [pq.read_table(path) for path in sorted((self.folder / "weeks").glob("*-labels.parquet"))]
        with whole_file(self.folder / "labels.parquet") as temporary:
            pq.write_table(pa.concat_tables(given), temporary)

    def cycle(self, arm: str, week: int) -> dict[str, Any]:
        """The arm's cycle on the week's log."""
        saturating = arm_refit(self.config, week)
        record: Mapping[str, Any] = run_cycle(
            self._cycle_config(arm),
            week_name(week),
            steps=self.steps,
            refit=saturating,
            promotion=UngatedPromotion() if arm == "no_gate" else GatedPromotion(),
        )
        return {k: record[k] for k in _DECIDED}

    def decide(self, week: int, pool: Executor) -> dict[str, dict[str, Any]]:
        """The cycles of the week, by arm; while the arms are one, the one without a gate is worked out only if they part."""
        together = self.together
        if together:
            self.branch()
        found = self._cycles(pool, ("weekly",) if together else ("weekly", "no_gate"), week)
        if together and found["weekly"]["verdict"] == "promote" and not found["weekly"]["alarms"]:
            self.join()
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
            running = [pool.submit(do, settings, self.folder, *given) for do, given in wanted]
            for done, _ in enumerate(as_completed(running), 1):
                progress(done, len(running))
            return [future.result() for future in running]

    def first_champion(self) -> None:
        """Where the gate held the first candidate back, it is put into production all the same: months need a beginning."""
        registry = Registry(self._run("weekly").registry)
        if registry.champion() is None:
            held = next(d for d in reversed(registry.decisions()) if d.candidate is not None)
            assert held.candidate is not None
            registry.promote(
                held.candidate,
                expected=None,
                reason=f"first champion, by the simulation and against the gate ({held.reason})",
                evidence={"override": True, "by": "corewrite simulate"},
            )

    @property
    def together(self) -> bool:
        """Whether the gate has made no difference yet: the arm without it is still the weekly arm."""
        return not (self.folder / "no_gate").is_dir()

    def join(self) -> None:
        """Take back a branch: the arms came to the same."""
        staging = self.folder / ".no_gate.joined"
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed here
        (self.folder / "no_gate").rename(staging)
        shutil.rmtree(staging)

    def branch(self) -> None:
        """Give the arm without a gate a registry and a log of its own, as the weekly arm's are now."""
        staging = self.folder / ".no_gate.partial"
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(self.folder / "weekly", staging)
        frozen = self.folder / "for-the-gate"
        if not (frozen / "no_gate.parquet").is_file():
            shutil.copy2(frozen / "weekly.parquet", frozen / "no_gate.parquet")
        staging.rename(self.folder / "no_gate")

    def put_spec(self, week: int) -> None:
        """The spec file of a week: from the incident on one with a floor that is too low, where that is the incident."""
        number, since = week - FIRST_WEEK + 1, self.config.incident_week
        bad = self.config.incident == "spec" and since is not None and number >= since
        write_spec_file(incident_spec() if bad else default_spec(), self.folder / "fusion.yaml")

    def serve(self, week: int, pool: Executor) -> dict[str, dict[str, Any]]:
        """All arms' traffic of a week and what was measured of it."""
        production = self._production(week)
        like: dict[tuple[str, str, str], str] = {}  # arms that serve the same see the same, and are worked out once
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
                _copy(self._users(first, week), self._users(arm, week))
            if arm != first and self._has_log(arm):
                _copy(self._log(first, week), self._log(arm, week))
        with self.steps.step("judge"):
            return self._rows(week, searches, production, {arm: measured[like[p.key]] for arm, p in production.items()})

    def serve_arm(self, arm: str, week: int) -> Week:
        """One arm's traffic of a week, its log and how its users' searches ended."""
        production = self._production(week)[arm]
        happened = self._traffic(week, production, f"{week_name(week)}, {arm}")
        with self.steps.step("read the log"):
            log = self._write_log(happened, arm, week)
            with whole_file(self._users(arm, week)) as temporary:
                pq.write_table(self._endings(log, production.deployment), temporary)
        return happened

    def _has_log(self, arm: str) -> bool:
        return arm == "weekly" or (arm == "no_gate" and not self.together)

    def _users(self, arm: str, week: int) -> Path:
        return self.folder / "weeks" / f"{week:02d}-{arm}-users.parquet"

    def rows(self) -> list[dict[str, Any]]:
        """Rows of every week and arm."""
        found = []
        for week in range(FIRST_WEEK, FIRST_WEEK + self.config.weeks):
            of_week = json.loads(self.row_file(week).read_text("utf-8"))
            found += [{"week": week - FIRST_WEEK + 1, "arm": arm, **of_week[arm]} for arm in ARMS]
        return found

    def row_file(self, week: int) -> Path:
        """Where a week's rows lie."""
        return self.folder / "weeks" / f"{week:02d}.json"

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

    def _log(self, arm: str, week: int) -> Path:
        return self.folder / arm / "logs" / f"{week_name(week)}.ndjson.gz"

    def _write_log(self, happened: Week, arm: str, week: int) -> Path:
        log = self._log(arm, week)
        log.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(log) as temporary:
            write_log(happened, self.catalogue, temporary)
        return log

    def _endings(self, log: Path, deployment: Deployment) -> pa.Table:
        """Searches that ended, were changed and were given up, by user, of users who may see a rewrite."""
        window = read_window(log, overlap=top_overlap(deployment.cascade), thresholds=self._thresholds)
        outcome, user = window.outcomes.outcome, window.outcomes.user_id
        counted = (outcome != Outcome.CENSORED) & (window.outcomes.arm != HOLDBACK)
        names, of = np.unique(user[counted].astype(str), return_inverse=True)
        kept = outcome[counted]
        return pa.table(
            {
                "user_id": names,
                "ended": np.bincount(of, minlength=len(names)),
                "changed": np.bincount(of, kept == Outcome.CHANGED, len(names)).astype(np.int64),
                "gave_up": np.bincount(of, kept == Outcome.GAVE_UP, len(names)).astype(np.int64),
            }
        )

    @property
    def _thresholds(self) -> SatisfactionThresholds | None:
        return MinedWindow(self._run("weekly").window(week_name(0))).thresholds

    def _production(self, week: int) -> dict[str, Production]:
        """What serves the arms in a week, pinned before the first search: a run cut off must not see the week's own outcome.

        The ranker is one team's work: the arms without cycles have the weekly arm's.
        """
        pinned = self.folder / "weeks" / f"{week:02d}-production.json"
        if not pinned.is_file():
            write_json(pinned, {arm: self._in_production(arm) for arm in ARMS})
        found = {}
        for arm, triple in json.loads(pinned.read_text("utf-8")).items():
            registry, name = self._registry(arm), triple["policy"]
            deployment = load_deployment(
                registry, RankerOpener(RankerSettings(), self.catalogue), triple["relevance"], triple["spec"]
            )
            found[arm] = Production(deployment, load_policy(registry, name) if name else None, name)
        return found

    def _in_production(self, arm: str) -> dict[str, str]:
        registry = self._registry(arm)
        champion = registry.champion()
        assert champion is not None  # see first_champion
        policy = "" if arm == HOLDBACK else champion.policy
        if arm == "never":
            policy = next(d.candidate.policy for d in registry.decisions() if d.verdict == "promote" and d.candidate)
        return {"policy": policy, "relevance": champion.relevance, "spec": champion.spec}

    def _run(self, arm: str) -> RunLayout:
        return arm_run(self.folder, arm)

    def _registry(self, arm: str) -> Registry:
        own = arm == "no_gate" and not self.together
        return Registry(self._run("no_gate" if own else "weekly").registry)

    def _some(self, happened: Week) -> Week:
        """Searches of a week that are measured, the same for all arms."""
        step = max(1, len(happened) // self.config.measured_searches)
        return happened.take(np.arange(0, len(happened), step)[: self.config.measured_searches])

    def measure_arm(self, arm: str, week: int, searches: Week) -> "WeeklyValue":
        """Truth and lists of the searches, reward on the gate users' instances of the week before."""
        production, limit = self._production(week)[arm], self.config.pipeline.max_new_tokens
        policy, deployment = production.policy, production.deployment
        rewrites: list[str | None] = [None] * len(searches)
        log_reward = 0.0
        if policy is not None:
            rewrites = served_rewrites(policy, searches.queries, max_new_tokens=limit)
            before = MinedWindow(self._run("weekly").window(week_name(week - 1)))
            instances = before.gate_instances()[: self.config.measured_searches]
            on_gate = served_rewrites(policy, [x.query for x in instances], max_new_tokens=limit)
            log_reward = float(log_rewards(deployment, instances, on_gate).mean())
        lists = fused_lists(deployment, searches.queries, rewrites)
        texts = [r or q.text for q, r in zip(searches.queries, rewrites, strict=True)]
        words = float(np.mean([len(t.split()) for t in texts]))
        return WeeklyValue(lists_ndcg10(self.world, searches, lists), lists, log_reward, words)

    def _rows(
        self, week: int, searches: Week, production: Mapping[str, Production], measured: Mapping[str, "WeeklyValue"]
    ) -> dict[str, dict[str, Any]]:
        with naming(self.folder / "weeks"):
            pq.write_table(
                pa.table({"user_id": list(searches.user_ids), **{arm: measured[arm].ndcg10 for arm in production}}),
                self.folder / "weeks" / f"{week:02d}-ndcg.parquet",
            )
        judged = self._judge.ndcg10(searches.queries, [m.lists for m in measured.values()])
        rows = {}
        for (arm, p), ndcg10 in zip(production.items(), judged, strict=True):
            table, of = pq.read_table(self._users(arm, week)), measured[arm]
            ended = int(np.sum(table["ended"].to_numpy()))
            rows[arm] = {
                "cqr": float(np.sum(table["changed"].to_numpy()) / ended),
                "give_up": float(np.sum(table["gave_up"].to_numpy()) / ended),
                "searches": ended,
                "reward": of.reward,
                "words": of.words,
                "judge": float(ndcg10.mean()),
                "ndcg10": float(of.ndcg10.mean()),
                "verdict": None,
                "policy": p.name,
                "relevance": p.deployment.model_hash,
                "spec": p.deployment.spec.spec_hash,
            }
        return rows

    @property
    def _judge(self) -> Judge:
        return fitted_judge(self.folder / "labels.parquet", self.folder / "documents.parquet", self.config.seed)

    def _cycle_config(self, arm: str) -> CycleConfig:
        own = self.folder / arm
        return CycleConfig(
            run=self._run(arm).root,
            documents=self.folder / "documents.parquet",
            logs=own / "logs",
            labels=self.folder / "labels.parquet",
            frozen=self.folder / "for-the-gate" / f"{arm}.parquet",
            spec=self.folder / "fusion.yaml",
            seed=self.config.seed,
            refresh=self.config.refresh,
            recovery=self.config.recovery,
            pipeline=self.config.pipeline,
        )


@cache
def _of_process(settings: str, folder: Path) -> _Months:
    """The months as a process of the pool knows them: its world and catalogue are made once."""
    with from_extra("train", "a process is kept to one core by threadpoolctl"):
        from threadpoolctl import threadpool_limits
    torch.set_num_threads(1)
    threadpool_limits(1)
    return _Months.open(MonthsConfig.model_validate_json(settings), folder, _Unseen())


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


def arm_refit(config: MonthsConfig, week: int) -> Refit:
    """How the relevance model is fitted in a week: soundly, but in the week of the incident."""
    if config.incident != "relevance" or config.incident_week != week - FIRST_WEEK + 1:
        return refit
    return lambda catalogue, seen, seed, progress: saturating(refit(catalogue, seen, seed, progress))


def saturating(model: LateInteraction, shift: float = 2.0) -> LateInteraction:
    """A model that scores high as soon as a part of the intent is met: it ranks, and can be gamed."""
    scalars = model.scalars.copy()
    scalars[SCALARS.index("bias")] += shift
    return replace(model, scalars=scalars)


def incident_spec() -> FusionSpec:
    """The spec of the incident: with bounds of 1/64 to 64 the probe would have found that copying the context pays."""
    return low_floor(default_spec(), bound=32)


def low_floor(spec: FusionSpec, eps: float = 1e-5, bound: float = 16.0) -> FusionSpec:
    """The spec with a floor that pays for moving documents nobody would ever see, and bounds to match.

    Args:
        spec: To change.
        eps: Floor of the rewrite signals.
        bound: Each rewrite factor lies within [1 / bound, bound], before its exponent. Within the bounds of the packaged spec
            the exploit is learnt all the same but costs half as much.
    """
    value = spec.model_dump(mode="json")
    for stage in ("rawrank", "finerank"):
        for signal in value[stage]["rewrite"]:
            signal |= {"eps": eps, "lo": 1 / bound, "hi": bound}
    return FusionSpec.model_validate(value)


def write_spec_file(spec: FusionSpec, path: Path) -> None:
    """Write a spec as a user would."""
    with naming(path):
        path.write_text(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), "utf-8")


def arm_run(folder: Path, arm: str) -> RunLayout:
    """The run folder of an arm's cycles."""
    return RunLayout(folder / arm / "run")


def months_history(folder: Path) -> list[WeekRecord]:
    """Records of the weekly arm's cycles."""
    return load_history(arm_run(folder, "weekly").root)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)
