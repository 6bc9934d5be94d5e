"""Week zero, `corewrite train`: probe, warm start, train, gate and decide on two windows of log, by the cycle's steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from corewrite.cycle.candidate_config import PipelineConfig
from corewrite.cycle.incumbent import Incumbent
from corewrite.cycle.kept_start import keep_start
from corewrite.cycle.records import as_json
from corewrite.cycle.spec_file import write_spec
from corewrite.cycle.steps.decide import decide
from corewrite.cycle.steps.warm_start import WarmStartReport, warm_start
from corewrite.cycle.training_run import run_training
from corewrite.cycle.window import LogWindow
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.served import fused_lists, log_rewards, served_rewrites
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Provenance, TrainingInstance
from corewrite.domain.filters import RewriteFilters, load_filters
from corewrite.domain.steps import Steps
from corewrite.evaluation.build import evaluate
from corewrite.evaluation.direct_grades import GradingTask
from corewrite.evaluation.protected_words import find_protected_words
from corewrite.evaluation.searches import OF_A_WARM_START, GateSearches, query_frequency
from corewrite.gate import Evaluation, GateResult, Verdict, run_gate
from corewrite.logs import Reformulation
from corewrite.registry import JSON, Candidate, Decision, Registry
from corewrite.relevance import Judge, ProbeResult, probe
from corewrite.relevance.pair_sample import Raters
from corewrite.rewriter import Rewriter
from corewrite.storage.run_layout import RunLayout
from corewrite.training import TrainingReport, retried
from corewrite.version import VERSION


class ProbeFailedError(RuntimeError):
    """The relevance model pays for adversarial rewrites: training on it would learn them."""


Observe = Callable[[Rewriter], dict[str, float]]


@dataclass(frozen=True, eq=False)
class CandidateRun:
    """What a run made.

    Attributes:
        warm: The warm start, or the policy that was trained on.
        candidate: The policy after training.
        warm_report: Of the warm start; None where there was none.
        probe: Of the relevance model, before training.
        training: Of the phases.
        start: What was observed of the warm start, as after each phase.
        evaluation: What the gate looked at.
        gate: Its verdict on the candidate against the champion, or the warm start where there is none.
        decision: As the registry wrote it down: a candidate that passes is held where the champion fails under its relevance
            model or spec, or was changed meanwhile.
        compared_with: Hash of the champion's policy; None: of the warm start.
        provenance: Of the candidate.
        labels: Of a file of rated results how many the judge is of, and what was left out; None: they are of no file.
    """

    warm: Rewriter
    candidate: Rewriter
    warm_report: WarmStartReport | None
    probe: ProbeResult
    training: TrainingReport
    start: dict[str, float]
    evaluation: Evaluation
    gate: GateResult
    decision: Decision
    compared_with: str | None
    provenance: Provenance
    labels: Mapping[str, object] | None = None


def make_candidate(
    earlier: LogWindow,
    window: LogWindow,
    deployment: Deployment,
    judge: Judge,
    registry: Registry,
    config: PipelineConfig,
    folder: Path,
    *,
    seed: int,
    steps: Steps,
    opener: RankerOpener | None = None,
    model: str | None = None,
    start: Rewriter | None = None,
    raters: Raters | None = None,
    observe: Observe = lambda policy: {},
) -> CandidateRun:
    """Train a candidate on a log window and let the gate decide, as a cycle's does: by the same evaluation, against the
    registry's champion as it is when this begins.

    A run that is repeated decides once: where the registry has the same verdict on the same candidate, that stands.

    Args:
        earlier: The window the relevance model was fitted on; its reformulations are learnt from too.
        window: The window whose searches give the reward its instances.
        deployment: The relevance model and spec in production.
        judge: Seen by the gate and the record only.
        registry: Where policies and decisions go.
        config: Settings.
        folder: For the training run, and the policy that it begins from.
        seed: The one seed.
        steps: Shows progress.
        opener: Opens what the champion ranks under; None: the bundled model and engine over the same documents.
        model: Path or name of a causal LM to start from; None: a small decoder trained from scratch.
        start: Policy to train on from, in the place of a warm start.
        raters: Who grades the pairs that `config.pairs_to_grade` asks for; None: nobody, the judge stands alone. The judge was
            fitted without their grades.
        observe: More to note of the policy after each phase; nothing of it reaches the training.

    Raises:
        ProbeFailedError: the relevance model is exploitable.
        RegistryError: the champion cannot be loaded.
        ValueError: too little data, or numbers that are none.
    """
    incumbent, filters = Incumbent.of(registry), load_filters(config.filters)
    data = _Windows.read(earlier, window, deployment, config, seed)
    provenance = Provenance(VERSION, window.span, deployment.spec.spec_hash, deployment.model_hash, seed)
    with steps.step("probe the relevance model"):
        probed = _probe(data, deployment, config)
    warm, warm_report = start, None
    if warm is None:
        with steps.step("warm start") as progress:
            warm, warm_report = warm_start(
                *data.reformulations(), deployment, config.warm_start, seed=seed, model=model, progress=progress
            )
    keep_start(warm, RunLayout(folder).start)
    watch = _Watch(deployment, judge, data.for_gate[: config.watched_queries], config.max_new_tokens, observe)
    protected = data.protected_words(deployment, seed)
    with steps.step("train: semi-online MPO") as progress:
        at_start = watch(-1, warm)
        candidate, report = run_training(
            warm,
            data.instances,
            deployment.reward,
            config,
            RunLayout(folder).training,
            seed=seed,
            provenance=provenance.as_dict(),
            protected_words=protected,
            observe=watch,
            progress=progress,
        )
    triple = _save(registry, candidate, deployment, provenance)
    incumbent = incumbent.before(registry, triple)
    grading = None
    if raters is not None and config.pairs_to_grade:
        grading = GradingTask(raters, config.pairs_to_grade, seed)
    with steps.step("gate") as progress:
        evaluation = evaluate(
            candidate,
            incumbent.policy or warm,
            data.searches(incumbent, protected, filters),
            deployment,
            judge,
            max_new_tokens=config.max_new_tokens,
            recent=incumbent.recent(registry),
            lineage=incumbent.lineage(registry),
            reference=warm,
            baseline_name="warm start" if incumbent.policy is None else "champion",
            grading=grading,
            progress=progress,
        )
        result = run_gate(evaluation, config.gate)
        problems: list[str] = []
        if result.verdict == Verdict.PROMOTE:
            opener = opener or RankerOpener(RankerSettings(), deployment.documents)
            problems = incumbent.problems(registry, triple, data.for_gate, deployment, opener, judge, config)
        decision = _decide(registry, triple, incumbent, result, problems, provenance)
    compared_with = None if incumbent.champion is None else incumbent.champion.policy
    return CandidateRun(
        warm, candidate, warm_report, probed, report, at_start, evaluation, result, decision, compared_with, provenance
    )


@dataclass(frozen=True, eq=False)
class _Windows:
    """What the two windows of log give.

    Attributes:
        earlier: The window the relevance model was fitted on.
        window: The window whose searches give the reward its instances.
        instances: Of users who may be trained on.
        for_gate: Of the gate's users.
    """

    earlier: LogWindow
    window: LogWindow
    instances: Sequence[TrainingInstance]
    for_gate: Sequence[TrainingInstance]

    @classmethod
    def read(
        cls, earlier: LogWindow, window: LogWindow, deployment: Deployment, config: PipelineConfig, seed: int
    ) -> "_Windows":
        """Mine the instances.

        Raises:
            ValueError: there are none.
        """
        instances = window.instances(deployment.documents, seed=seed)
        for_gate = window.instances(deployment.documents, seed=seed, for_gate=True)[: config.gate_queries]
        if not instances or not for_gate:
            raise ValueError(
                f"the log gives {len(instances)} training and {len(for_gate)} gate instances (searches with a satisfying and "
                "an examined unsatisfying document): bring a longer log"
            )
        return cls(earlier, window, instances, for_gate)

    def reformulations(self) -> tuple[list[Reformulation], list[Reformulation]]:
        """Successful reformulations and satisfied queries of both windows."""
        successful_reformulations, satisfied_queries = (
            a + b for a, b in zip(self.earlier.reformulations(), self.window.reformulations(), strict=True)
        )
        return successful_reformulations, satisfied_queries

    def protected_words(self, deployment: Deployment, seed: int) -> frozenset[str]:
        """Words that neither what is learnt nor what is gated should drop."""
        seen = [*self.earlier.instances(deployment.documents, seed=seed), *self.instances]
        return find_protected_words(seen, deployment.documents, seed=seed)

    def searches(self, incumbent: Incumbent, protected_words: frozenset[str], filters: RewriteFilters) -> GateSearches:
        """What candidate and incumbent are compared on."""
        before = query_frequency(self.earlier.outcomes.query.tolist())
        return GateSearches(
            self.for_gate,
            before + query_frequency(self.window.outcomes.query.tolist()),
            before=before,
            successful_reformulations=OF_A_WARM_START if incumbent.champion is None else self.window.gate_repairs(),
            protected_words=protected_words,
            filters=filters,
        )


def _probe(data: _Windows, deployment: Deployment, config: PipelineConfig) -> ProbeResult:
    """Look whether the relevance model pays for adversarial rewrites.

    Raises:
        ProbeFailedError: it does.
    """
    probed = probe(data.instances[: config.probe_instances], retried(deployment.reward, config.training.scoring))
    if not probed.passed:
        paid = ", ".join(f"{f.name} earns {f.reward:+.3f}" for f in probed.findings if f.paid)
        raise ProbeFailedError(
            f"the relevance model pays for adversarial rewrites ({paid} nats of log R): raise eps in the fusion spec or "
            "refit the model before training on it"
        )
    return probed


@dataclass(frozen=True, eq=False)
class _Watch:
    """Held-out reward and judge of a policy, for the record."""

    deployment: Deployment
    judge: Judge
    instances: Sequence[TrainingInstance]
    max_new_tokens: int
    observe: Observe

    def __call__(self, phase: int, policy: Rewriter) -> dict[str, float]:
        queries = [x.query for x in self.instances]
        rewrites = served_rewrites(policy, queries, max_new_tokens=self.max_new_tokens)
        (judged,) = self.judge.ndcg10(queries, [fused_lists(self.deployment, queries, rewrites)])
        return {
            "reward": float(log_rewards(self.deployment, self.instances, rewrites).mean()),
            "judge": float(judged.mean()),
            **self.observe(policy),
        }


def _save(registry: Registry, policy: Rewriter, deployment: Deployment, provenance: Provenance) -> Candidate:
    about: Mapping[str, JSON] = {"provenance": provenance.as_dict()}
    return Candidate(
        policy=registry.save("policy", policy.save, {**about, "policy_hash": policy.policy_hash}).hash,
        relevance=registry.save("relevance", deployment.ranker.save, {**about, **deployment.ranker.about}).hash,
        spec=registry.save(
            "spec", lambda folder: write_spec(folder, deployment.spec), {**about, "spec_hash": deployment.spec.spec_hash}
        ).hash,
    )


def _decide(
    registry: Registry,
    triple: Candidate,
    incumbent: Incumbent,
    result: GateResult,
    problems: Sequence[str],
    provenance: Provenance,
) -> Decision:
    """Promote the triple or write down why not."""
    verdict, reason = result.verdict, result.reason
    if problems:
        verdict = Verdict.HOLD
        reason = f"it passed, but the champion does not hold under its relevance model and spec: {'; '.join(problems)}"
    about_it = [d for d in registry.decisions() if d.candidate == triple]
    if about_it and about_it[-1].verdict == verdict and about_it[-1].previous == incumbent.version:
        return about_it[-1]
    evidence = {**as_json(result.as_dict()), "provenance": asdict(provenance)}
    decision = decide(registry, triple, verdict, expected=incumbent.version, reason=reason, evidence=evidence)
    if decision.verdict == "reject":
        registry.quarantine("policy", triple.policy, reason)
    return decision
