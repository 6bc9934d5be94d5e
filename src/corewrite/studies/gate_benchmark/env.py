"""The environment of the gate benchmark: one seed's platform, champion and gate searches, and the truth of a week after.

Everything costly is computed once and kept: logs and mined windows as files, policies and relevance models in a registry,
rewrites by policy hash. Of a candidate only what differs from the champion is searched, rewarded and judged.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from corewrite.cycle.steps.warm_start import warm_start
from corewrite.cycle.training_run import training_progress
from corewrite.deployment.load import load_policy
from corewrite.deployment.served import served_rewrites
from corewrite.domain import hash_share
from corewrite.evaluation.build import OF_NO_LINEAGE, PolicyResult, build_evaluation
from corewrite.evaluation.direct_grades import GradingTask
from corewrite.gate import Absent, GateResult, run_gate
from corewrite.rewriter import Rewriter, sample
from corewrite.rewriter.generate import as_rewrite
from corewrite.storage.durable import make_folder
from corewrite.storage.journal import write_json
from corewrite.studies.gate_benchmark.change import Change, relative_change
from corewrite.studies.gate_benchmark.outputs import CaseOutput, Where, subset
from corewrite.studies.gate_benchmark.platform import BenchmarkPlatform
from corewrite.studies.gate_benchmark.remember import Rewrites
from corewrite.studies.gate_benchmark.trainings import (
    SOUND,
    WARM,
    RankerVariant,
    Training,
    build_trainings,
    champion_training_name,
    poisoned,
)
from corewrite.studies.truth import lists_ndcg10
from corewrite.training import train

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(eq=False)
class BenchmarkEnv(BenchmarkPlatform):
    """One seed's platform with its policies, what they serve, and the gate; see `BenchmarkPlatform` for the attributes."""

    _loaded: dict[str, Rewriter] = field(default_factory=dict, repr=False)

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
                self.deployed(SOUND).deployment,
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
        config = training.config.model_copy(update={"patience": 0})  # the policies of fixed phases are kept

        def observe(phase: int, policy: Rewriter) -> dict[str, float]:
            if phase + 1 in training.keep:
                self._keep(training.policy(phase + 1), policy)
            return {}

        with self.steps.step(f"seed {self.seed}: train {training.name}") as progress:
            show, after_phase = training_progress(progress, config.phases, observe)
            train(
                policy,
                instances,
                deployment.reward,
                config,
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
        return lists_ndcg10(self.world, self.truth_week, self.deployed(under).lists("truth", rewrites))

    def true_change(self, under: RankerVariant, candidate: Rewrites, champion: Rewrites) -> Change:
        """Relative change of true nDCG@10 from the champion's to the candidate's rewrites of the week after."""
        base = self.truth(under, champion)
        return relative_change(self.truth(under, candidate), base, self.truth_week.user_ids)

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
        """The gate's result, and the relative change of the judge's nDCG@10, corrected by raters' direct grades.

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
            grading=GradingTask(self.raters, self.config.graded_pairs, self.seed),
        )
        sides = (whole.candidate, whole.champion)
        judged = [np.asarray(o.judge_ndcg if o.corrected_ndcg is None else o.corrected_ndcg) for o in sides]
        change = relative_change(judged[0], judged[1], whole.user_ids)
        if users_of is None:
            return run_gate(whole, self.config.gate), change
        some = np.flatnonzero([hash_share(u, users_of) < 0.5 for u in whole.user_ids])
        return run_gate(subset(whole, some), self.config.gate), change

    def _side(self, served: CaseOutput) -> PolicyResult:
        policy = None if served.policy is None else self.policy(served.policy)
        canaries = Absent("no instruction was planted for it") if served.canaries is None else served.canaries
        return PolicyResult(served.rewrites, served.rows, served.log_reward, policy, canaries)
