"""What the gate benchmark stands on: one seed's platform with its champion, its gate searches, and the truth of a week after.

Everything dear is made once and kept: logs and mined windows as files, policies and relevance models in a registry, rewrites by
policy hash. Of a candidate only what differs from the champion is searched, rewarded and judged.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from corewrite.cycle import read_catalogue, read_labels, write_catalogue, write_labels
from corewrite.cycle.mined_week import MinedWindow, build_impressions, mine_week
from corewrite.cycle.steps.fit_relevance import refit
from corewrite.cycle.steps.gate_searches import gate_searches
from corewrite.cycle.steps.warm_start import warm_start
from corewrite.cycle.training_run import training_progress
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.deployment.load import load_policy
from corewrite.deployment.served import fused_lists, log_rewards, served_rewrites
from corewrite.domain import Catalogue, Query, TrainingInstance, hash_share
from corewrite.domain.steps import Steps
from corewrite.evaluation.build import OF_NO_LINEAGE, PolicyResult, build_evaluation
from corewrite.evaluation.searches import GateSearches
from corewrite.fusion import default_spec
from corewrite.gate import Absent, Evaluation, GateResult, PolicyOutputs, run_gate
from corewrite.registry import Registry
from corewrite.relevance import LateInteraction, TreeJudge, cold_start
from corewrite.rewriter import Rewriter, sample
from corewrite.rewriter.generate import as_rewrite
from corewrite.search import top_overlap
from corewrite.simulation.export import write_log
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import World, make_world
from corewrite.storage.durable import make_folder, whole_file
from corewrite.storage.journal import Journal, write_json
from corewrite.storage.run_layout import RunLayout
from corewrite.studies.engine import NoRewriter, assign_arm
from corewrite.studies.gate_benchmark.config import GateBenchConfig
from corewrite.studies.gate_benchmark.families import CorpusStats
from corewrite.studies.gate_benchmark.remember import Remembered, RememberingJudge, Rewrites
from corewrite.studies.gate_benchmark.trainings import (
    SOUND,
    WARM,
    RankerVariant,
    Training,
    build_trainings,
    champion_training_name,
    poisoned,
)
from corewrite.studies.longitudinal.layout import week_name
from corewrite.studies.platform import ratings
from corewrite.studies.ratios import ratio_of_sums, standard_error
from corewrite.studies.truth import lists_ndcg10
from corewrite.training import train

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Where = Literal["gate", "truth", "canaries"]

_TRUTH_WEEK = 2


@dataclass(frozen=True, eq=False)
class CaseOutput:
    """What one policy's rewrites come to on the gate's searches.

    Attributes:
        rewrites: Of every search.
        rows: Fused lists, int64 [searches, 10].
        log_reward: log R, nats, float64 [searches].
        policy: Name of the policy; None: a rewriting, which has no likelihoods.
        canaries: Answers to the planted instructions; None: not asked.
    """

    rewrites: Rewrites
    rows: IntArray
    log_reward: FloatArray
    policy: str | None = None
    canaries: Rewrites | None = None


@dataclass(frozen=True)
class Change:
    """A relative change, (candidate - champion) / champion, with its 95 % interval.

    Attributes:
        change: Estimate.
        low: Lower end.
        high: Upper end.
    """

    change: float
    low: float
    high: float


def relative_change(candidate: FloatArray, champion: FloatArray, users: Sequence[str]) -> Change:
    """Change of a mean relative to the champion's, paired by search.

    Student's t with users - 1 degrees of freedom, on the error of the ratio of sums over users.

    Args:
        candidate: Of each search.
        champion: The same, with a mean above 0.
        users: Whose search each is.
    """
    _, of = np.unique(np.asarray(users, dtype=str), return_inverse=True)
    a, b = (np.bincount(of, values).astype(np.float64) for values in (candidate, champion))
    ratio, parts = ratio_of_sums(a, b)
    reach = float(stats.t.ppf(0.975, max(1, len(a) - 1))) * standard_error(parts)
    return Change(ratio - 1, ratio - 1 - reach, ratio - 1 + reach)


@dataclass(eq=False)
class BenchmarkEnv:
    """One seed's platform; what is dear is made when first asked for, and read when asked for again.

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
    _deployed: dict[RankerVariant, "_Deployed"] = field(default_factory=dict, repr=False)
    _loaded: dict[str, Rewriter] = field(default_factory=dict, repr=False)

    # The platform.

    @cached_property
    def world(self) -> World:
        """Truth, for simulating and measuring only."""
        return make_world(self.config.of(self.seed).seeded_world)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The documents."""
        file = self.folder / "documents.parquet"
        _made(file, lambda path: write_catalogue(self.world.catalogue, path))
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
        deployment = embedded_deployment(self.catalogue, cold_start(self.catalogue, seed=self.seed), default_spec())
        if earlier is not None:
            deployment = self.deployed(SOUND).deployment
        platform = self.config.of(self.seed)
        happened = self._traffic(week, platform.sessions, deployment)
        if week == 0:
            graded = ratings(self.world, happened, deployment.cascade, platform.rated_searches)
            _made(self.folder / "labels.parquet", lambda path: write_labels(graded, self.catalogue, path))
        log = self.folder / "logs" / f"{week_name(week)}.ndjson.gz"
        _made(log, lambda path: write_log(happened, self.catalogue, path))
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
    def lore(self) -> CorpusStats:
        """What can be known of queries and titles."""
        return CorpusStats.of(self._frequency, self.catalogue)

    @cached_property
    def _frequency(self) -> Counter[str]:
        return self.window(0).frequency() + self.window(1).frequency()

    @cached_property
    def searches(self) -> GateSearches:
        """What the gate looks at: gate users' searches of the last week of log; those of the week before are the frozen set."""
        windows = [self.window(0), self.window(1)]
        frozen = windows[0].for_gate(self.config.frozen_searches)
        return gate_searches(windows, self.catalogue, frozen, limit=self.config.gate_searches, seed=self.seed)

    @property
    def instances(self) -> list[TrainingInstance]:
        """All searches that the gate looks at."""
        return self.searches.instances

    @cached_property
    def _truth(self) -> Week:
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
            return self._truth.queries
        if where == "canaries":
            return self.searches.canaries
        return self.searches.queries

    def deployed(self, under: RankerVariant) -> "_Deployed":
        """What ranks and rewards. Of the exploitable ones only the last asked for is kept: each fills a table of scores."""
        if under not in self._deployed:
            for other in [u for u in self._deployed if u != SOUND]:
                del self._deployed[other]
            self._deployed[under] = _Deployed(self, embedded_deployment(self.catalogue, under.model(self._model), under.spec()))
        return self._deployed[under]

    # Policies.

    def load_hash(self, name: str) -> str:
        """Hash of the policy in the registry; trained now where it was not yet.

        Raises:
            KeyError: no training of the benchmark makes it.
        """
        if (found := self.journal.read(f"policy-{name}")) is None:
            if name == WARM:
                self._warm_start()
            else:
                self._train(self.trainings[name.rpartition("-")[0]])
            found = self.journal.read(f"policy-{name}")
            if found is None:
                raise KeyError(f"the training keeps no policy {name!r}")
        return str(found["hash"])

    def policy(self, name: str) -> Rewriter:
        """The policy, checked against its hash."""
        hash = self.load_hash(name)
        if hash not in self._loaded:
            while len(self._loaded) >= 8:
                del self._loaded[next(iter(self._loaded))]
            self.registry.verify("policy", hash)
            self._loaded[hash] = load_policy(self.registry, hash)
        return self._loaded[hash]

    @property
    def champion(self) -> str:
        """Name of the champion."""
        return champion_training_name(self.config)

    @cached_property
    def trainings(self) -> dict[str, Training]:
        """All trainings of the benchmark by name."""
        return build_trainings(self.config, self.seed)

    def _warm_start(self) -> None:
        windows = [self.window(0), self.window(1)]
        successful_reformulations, satisfied_queries = ([r for w in windows for r in w.reformulations()[i]] for i in (0, 1))
        with self.steps.step(f"seed {self.seed}: warm start") as progress:
            policy, _ = warm_start(
                successful_reformulations,
                satisfied_queries,
                self.catalogue,
                self.config.platform.pipeline.warm_start,
                seed=self.seed,
                progress=progress,
            )
        self._keep(WARM, policy)

    def _train(self, training: Training) -> None:
        instances = self.window(1).instances()
        if training.bots:
            instances = poisoned(instances, self.catalogue, training.bots, self.seed)
        policy = self.policy(training.start).copy()
        deployment = self.deployed(training.under).deployment

        def observe(phase: int, policy: Rewriter) -> dict[str, float]:
            if phase + 1 in training.keep:
                self._keep(training.policy(phase + 1), policy)
            return {}

        with self.steps.step(f"seed {self.seed}: train {training.name}") as progress:
            show, after_phase = training_progress(progress, training.config.phases, observe)
            train(
                policy,
                instances,
                deployment.reward,
                training.config,
                self.layout.training / training.name,
                seed=training.seed,
                provenance={"model": deployment.model_hash, "spec": deployment.spec.spec_hash},
                observe=after_phase,
                progress=show,
            )
        shutil.rmtree(self.layout.training / training.name)

    def _keep(self, name: str, policy: Rewriter) -> None:
        self.journal.once(f"policy-{name}", lambda: {"hash": self.registry.save("policy", policy.save, {"name": name}).hash})

    # What policies serve.

    def rewrites(self, name: str, where: Where) -> list[str | None]:
        """Greedy rewrites of a policy, decoded once and kept by its hash."""
        file = self.folder / "rewrites" / f"{self.load_hash(name)[:24]}-{where}.json"
        if not file.is_file():
            limit = self.config.platform.pipeline.max_new_tokens
            found = served_rewrites(self.policy(name), self.queries(where), max_new_tokens=limit)
            make_folder(file.parent)
            write_json(file, {"policy": self.load_hash(name), "rewrites": found})
        return list(json.loads(file.read_text("utf-8"))["rewrites"])

    def sampled(self, n: int) -> list[list[str | None]]:
        """`n` samples of the champion's rewrites at temperature 1, by sample, then gate search."""
        file = self.folder / "rewrites" / f"{self.load_hash(self.champion)[:24]}-sampled-{n}.json"
        if not file.is_file():
            policy, queries = self.policy(self.champion), self.queries("gate")
            with self.steps.step(f"seed {self.seed}: sample the champion") as progress:
                drawn = sample(
                    policy,
                    [policy.template.encode(q) for q in queries],
                    n,
                    keys=[int(q.key[:15], 16) for q in queries],
                    seed=self.seed,
                    phase=0,
                    max_new_tokens=self.config.platform.pipeline.max_new_tokens,
                    progress=progress,
                )
            texts = [[as_rewrite(policy, row[k]).text or None for row in drawn] for k in range(n)]
            make_folder(file.parent)
            write_json(file, {"rewrites": texts})
        return [list(row) for row in json.loads(file.read_text("utf-8"))["rewrites"]]

    def served(self, under: RankerVariant, rewrites: Rewrites) -> CaseOutput:
        """What rewrites of the gate's searches come to."""
        deployed = self.deployed(under)
        return CaseOutput(rewrites, deployed.lists("gate", rewrites), deployed.rewards(rewrites))

    def of_policy(self, under: RankerVariant, name: str) -> CaseOutput:
        """What a policy's rewrites of the gate's searches come to, and its answers to planted instructions."""
        found = self.served(under, self.rewrites(name, "gate"))
        return replace(found, policy=name, canaries=self.rewrites(name, "canaries"))

    def truth(self, under: RankerVariant, rewrites: Rewrites) -> FloatArray:
        """nDCG@10 against hidden intents of every search of the week after: for measuring only."""
        return lists_ndcg10(self.world, self._truth, self.deployed(under).lists("truth", rewrites))

    def true_change(self, under: RankerVariant, candidate: Rewrites, champion: Rewrites) -> Change:
        """Relative change of true nDCG@10 from the champion's to the candidate's rewrites of the week after."""
        base = self.truth(under, champion)
        return relative_change(self.truth(under, candidate), base, self._truth.user_ids)

    # The gate.

    def gate(
        self,
        under: RankerVariant,
        candidate: CaseOutput,
        champion: CaseOutput,
        *,
        recent: Sequence[CaseOutput] = (),
        start: str | None = None,
        problems: Sequence[str] = (),
        users_of: str | None = None,
    ) -> tuple[GateResult, Change]:
        """The gate's result, and the relative change of the judge's nDCG@10.

        Args:
            under: What ranks and rewards.
            candidate: Proposed.
            champion: Compared with.
            recent: Champions of the last weeks; the best of them by the judge is a bar.
            start: Name of the policy that the candidate's training began from; None: it was not trained.
            problems: What is wrong with the candidate's files.
            users_of: Name of a random half of the users to compare on; None: all.
        """
        original = self.deployed(under).lists("gate", [None] * len(self.searches.queries))
        both = candidate.policy is not None and champion.policy is not None
        whole = build_evaluation(
            self.searches,
            self._side(candidate),
            self._side(champion),
            original,
            self.judge,
            recent=[self._side(replace(s, policy=None)) for s in recent],
            # As in a cycle: there is none where the champion itself is the first.
            lineage=self.policy(WARM) if both and champion.policy != WARM else OF_NO_LINEAGE,
            reference=self.policy(start) if both and start is not None else Absent("the candidate was not trained"),
            problems=problems,
        )
        judged = [np.asarray(o.judge_ndcg) for o in (whole.candidate, whole.champion)]
        change = relative_change(judged[0], judged[1], whole.user_ids)
        if users_of is None:
            return run_gate(whole, self.config.gate), change
        some = np.flatnonzero([hash_share(u, users_of) < 0.5 for u in whole.user_ids])
        return run_gate(_of_some(whole, some), self.config.gate), change

    def _side(self, served: CaseOutput) -> PolicyResult:
        policy = None if served.policy is None else self.policy(served.policy)
        canaries = Absent("no instruction was planted for it") if served.canaries is None else served.canaries
        return PolicyResult(served.rewrites, served.rows, served.log_reward, policy, canaries)


class _Deployed:
    """A deployment and what rewrites come to under it."""

    def __init__(self, ground: BenchmarkEnv, deployment: Deployment) -> None:
        self.deployment = deployment
        self._lists: dict[Where, Remembered] = {}
        self._ground = ground

    def lists(self, where: Where, rewrites: Rewrites) -> IntArray:
        """Fused lists, int64 [searches, 10]."""
        if where not in self._lists:
            queries = self._ground.queries(where)
            self._lists[where] = Remembered(lambda some, texts: fused_lists(self.deployment, [queries[i] for i in some], texts))
        return self._lists[where](rewrites)

    @cached_property
    def rewards(self) -> Remembered:
        """log R of the gate's searches."""
        instances = self._ground.instances
        return Remembered(lambda some, texts: log_rewards(self.deployment, [instances[i] for i in some], texts))


def _of_some(whole: Evaluation, some: IntArray) -> Evaluation:
    """The evaluation on some of its searches, with all that it holds."""

    def of(side: PolicyOutputs) -> PolicyOutputs:
        values = {f.name: getattr(side, f.name) for f in fields(side) if f.name != "rewrites"}
        return PolicyOutputs([side.rewrites[i] for i in some], **{n: None if v is None else v[some] for n, v in values.items()})

    return replace(
        whole,
        user_ids=[whole.user_ids[i] for i in some],
        queries=[whole.queries[i] for i in some],
        slices={n: m[some] for n, m in whole.slices.items()},
        candidate=of(whole.candidate),
        champion=of(whole.champion),
        original_judge_ndcg=None if whole.original_judge_ndcg is None else whole.original_judge_ndcg[some],
        kl=None if whole.kl is None else {n: v[some] for n, v in whole.kl.items()},
        recent=None if whole.recent is None else of(whole.recent),
    )


def _made(file: Path, write: Callable[[Path], None]) -> None:
    """Write a file whole, or not at all; one that is there stays."""
    if not file.is_file():
        make_folder(file.parent)
        with whole_file(file) as temporary:
            write(temporary)
