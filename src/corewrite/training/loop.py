"""Semi-online Mixed Preference Optimization: the loop.

Compared with on-policy RL (PPO, GRPO) it leaves out the value model, advantages, importance weights and a sync per step: a
phase samples once from frozen weights, and only the best and worst few of the N samples are ever back-propagated through.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Protocol

import numpy as np

from corewrite.domain import TrainingInstance, sha256_json
from corewrite.rewriter import Rewriter
from corewrite.training import parallel
from corewrite.training.candidates import Scored
from corewrite.training.checkpoint import RunFolder, load_trained, pack_state, unpack_state
from corewrite.training.config import TrainingConfig
from corewrite.training.optimise import Cursor, new_optimizer, optimise, reference_log_probs
from corewrite.training.pairs import select_pairs
from corewrite.training.rollouts import Progress, Rollouts, build_prompts
from corewrite.training.rows import Row, plan_steps
from corewrite.training.samplers.in_process import InProcessEngine
from corewrite.training.samplers.protocol import SamplingEngine
from corewrite.training.scoring import Reward
from corewrite.training.threads import with_threads


class PhaseObserver(Protocol):
    """Looks at the policy after each phase, for the record only: nothing it returns reaches the training."""

    def __call__(self, phase: int, policy: Rewriter) -> dict[str, float]:
        """Measures by name."""
        ...


@dataclass(frozen=True)
class TrainingReport:
    """A finished run.

    Attributes:
        phases: Phases done, earlier runs of the same folder included.
        rollouts: Rewrites sampled.
        pairs: Preferences learnt from.
        optimizer_steps: Optimizer steps.
        syncs: Weight syncs to the sampler.
        lost: Instances left out of their phase: no score in the end, or no prompt that holds the query.
        records: The phases' records.
    """

    phases: int
    rollouts: int
    pairs: int
    optimizer_steps: int
    syncs: int
    lost: int
    records: tuple[dict[str, Any], ...]


def train(
    policy: Rewriter,
    instances: Sequence[TrainingInstance],
    reward: Reward,
    config: TrainingConfig,
    folder: Path,
    *,
    seed: int,
    provenance: dict[str, Any],
    engine: SamplingEngine | None = None,
    observe: PhaseObserver = lambda phase, policy: {},
    progress: Progress = lambda what, done, total: None,
) -> TrainingReport:
    """Train `policy` in place; a killed run continues where it was, to the same weights.

    Args:
        policy: Where to start: the warm start or the champion. It is also the reference.
        instances: Training instances; each phase takes the next ones of one random order.
        reward: log R of texts.
        config: Settings.
        folder: Run folder.
        seed: The one seed.
        provenance: What the reward and the data are (hashes, window); a run resumes only under the same.
        engine: What samples; default: a copy of the policy in this process.
        observe: Called after each phase.
        progress: Called with (what, done, total).

    Raises:
        ValueError: no instance, one that is kept for the gate, two of one id, phases that overlap in several processes, no pair
            in a phase, or a reward or loss that is not a number.
        ResumeError: the folder holds another run.
        SamplerDriftError: the engine samples from something else than the policy.
        CheckpointError: a file could not be written.
    """
    if not instances:
        raise ValueError("training needs instances: the log holds no search with both D+ and D-")
    if (kept := next((x for x in instances if x.evaluation_only), None)) is not None:
        raise ValueError(f"instance {kept.instance_id!r} is kept for the gate: training on it would blind the gate")
    if (twice := Counter(x.instance_id for x in instances).most_common(1)[0])[1] > 1:
        raise ValueError(f"{twice[1]} instances are called {twice[0]!r}: their rewrites and rewards go by that id")
    if config.overlap and parallel.world() > 1:
        raise ValueError("phases cannot overlap in several processes: their messages would cross; set overlap: false")
    run = RunFolder(folder, _identity(policy, instances, config, seed, provenance), writes=parallel.rank() == 0)
    with with_threads(parallel.from_first(run.threads)):
        return _train(policy, instances, reward, config, run, seed, engine, observe, progress)


def _train(
    policy: Rewriter,
    instances: Sequence[TrainingInstance],
    reward: Reward,
    config: TrainingConfig,
    run: RunFolder,
    seed: int,
    engine: SamplingEngine | None,
    observe: PhaseObserver,
    progress: Progress,
) -> TrainingReport:
    reference, optimizer = policy.copy(), new_optimizer(policy, config)
    refreshed = reference if config.refresh_reference else None
    begin, cursor = 0, Cursor()
    if (state := parallel.from_first(run.state())) is not None:
        unpack_state(state.tensors, policy, optimizer, refreshed)
        begin, cursor = state.phase, state.cursor
    rollouts = Rollouts(engine or InProcessEngine(policy, config.sampler_precision), policy, reward, config, seed)
    phases = _Phases(run, rollouts, instances, config, seed, progress)
    for phase in range(begin):
        phases.remember(phase, run.scored(phase))

    for phase in range(begin, config.phases):
        scored = phases.scored(phase)  # sync once, sample many, score; or read what was written down
        clock = _Clock()
        batch = phases.batch(phase)
        rows = _rows(policy, batch, scored, config)
        if not rows:
            raise ValueError(_no_pair(phase, batch, scored, config))
        if config.overlap:  # with this phase's prompts built: the template counts those of one phase at a time
            phases.begin(phase + 1)
        steps = plan_steps(
            rows, config.pairs_per_step, config.tokens_per_micro_batch, seed=seed, phase=phase, packed=policy.paths.packed
        )
        if refreshed and not cursor.step:
            load_trained(reference, policy.trained_state())
        reference_side = reference_log_probs(
            reference, rows, steps, config, cursor.step, lambda done, total: progress("reference", done, total)
        )
        clock.lap("reference")
        # The first process's count: another one may be on a machine that does not see the run's folder.
        steps_before = parallel.from_first(sum(r["optimizer_steps"] for r in run.records()[:phase]))
        cursor = optimise(
            policy,
            optimizer,
            rows,
            steps,
            reference_side,
            cursor,
            config,
            phase=phase,
            steps_before=steps_before,
            after_step=_Checkpoints(run, phase, len(steps), policy, optimizer, refreshed, config, progress),
        )
        clock.lap("learn")
        observed = observe(phase, policy)
        clock.lap("observe")
        phases.wait()
        run.write_record(phase, _record(phase, batch, scored, rows, cursor, observed, clock.seconds))
        cursor = Cursor(shift=cursor.shift)
        run.write_state(phase + 1, cursor, pack_state(policy, optimizer, refreshed))
    return _report(parallel.from_first(run.records()))


class _Phases:
    """The phases' scored rewrites: from the record where it is written, else made."""

    def __init__(
        self,
        run: RunFolder,
        rollouts: Rollouts,
        instances: Sequence[TrainingInstance],
        config: TrainingConfig,
        seed: int,
        progress: Progress,
    ) -> None:
        self._run, self._rollouts, self._instances, self._config, self._progress = run, rollouts, instances, config, progress
        self._order = np.random.default_rng([seed, 72]).permutation(len(instances))
        self._waiting: Future[None] | None = None

    def batch(self, phase: int) -> list[TrainingInstance]:
        """The next instances of the run's random order, starting over (in the same order) where it ends."""
        n = min(self._config.instances_per_phase, len(self._instances))
        return [self._instances[self._order[(phase * n + i) % len(self._instances)]] for i in range(n)]

    def scored(self, phase: int) -> Scored:
        """The phase's scored rewrites, on disk when this returns."""
        self.wait()
        if (found := parallel.from_first(self._run.scored(phase))) is None:
            self._make(phase, *self._sync(phase))
            # What is learnt from is what a resumed run would read.
            found = parallel.from_first(self._run.scored(phase))
            assert found is not None
        self.remember(phase, found)
        return found

    def begin(self, phase: int) -> None:
        """Sync now, and make the phase's rewrites beside the training that follows: from weights that are one phase old."""
        if phase < self._config.phases and self._run.scored(phase) is None:
            sync = self._sync(phase)
            self._waiting = ThreadPoolExecutor(1).submit(self._make, phase, *sync)

    def wait(self) -> None:
        """Until what `begin` began is on disk; raises what it raised."""
        if self._waiting is not None:
            self._waiting.result()
            self._waiting = None

    def remember(self, phase: int, scored: Scored | None) -> None:
        """Keep the scores where instances come again."""
        n = min(self._config.instances_per_phase, len(self._instances))
        if scored is not None and self._config.phases * n > len(self._instances):
            self._rollouts.remember(self.batch(phase), scored)

    def _sync(self, phase: int) -> tuple[Any, float]:
        policy = self._rollouts.policy
        fitting = [x for x in self.batch(phase) if not policy.template.too_long(x.query)]
        prompts, _, keys = build_prompts(policy, fitting[:64])
        return self._rollouts.sync(prompts, keys, phase)

    def _make(self, phase: int, sync: Any, drift: float) -> None:
        self._run.write_scored(phase, self._rollouts.collect(self.batch(phase), sync, drift, phase, self._progress))


class _Checkpoints:
    """After each step: shows it, and now and then writes where the phase stands."""

    def __init__(
        self,
        run: RunFolder,
        phase: int,
        steps: int,
        policy: Rewriter,
        optimizer: Any,
        refreshed: Rewriter | None,
        config: TrainingConfig,
        progress: Progress,
    ) -> None:
        self._run, self._phase, self._steps, self._progress = run, phase, steps, progress
        self._state = (policy, optimizer, refreshed)
        # The next phase's rewrites come from the weights this one began with: half-way there is no going on from there.
        self._pause = float("inf") if config.overlap else 60 * config.checkpoint_minutes
        self._last = monotonic()

    def __call__(self, cursor: Cursor) -> None:
        self._progress("learn", cursor.step, self._steps)
        if monotonic() - self._last >= self._pause and cursor.step < self._steps:
            self._run.write_state(self._phase, cursor, pack_state(*self._state))
            self._last = monotonic()


def _identity(
    policy: Rewriter, instances: Sequence[TrainingInstance], config: TrainingConfig, seed: int, provenance: dict[str, Any]
) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "start": policy.policy_hash,
        "instances": sha256_json([[x.instance_id, x.query.key, x.positives, x.negatives] for x in instances]),
        "provenance": provenance,
    }


def _rows(policy: Rewriter, batch: Sequence[TrainingInstance], scored: Scored, config: TrainingConfig) -> list[Row]:
    rows = []
    for x in batch:
        pairs = select_pairs(scored.candidates.get(x.instance_id, ()), config.k, config.minimum_gap)
        if pairs:
            rows.append(Row(x.instance_id, tuple(policy.template.encode(x.query)), tuple(pairs)))
    return rows


def _no_pair(phase: int, batch: Sequence[TrainingInstance], scored: Scored, config: TrainingConfig) -> str:
    if scored.lost:
        instance, reason = next(iter(scored.lost.items()))
        return f"phase {phase}: {len(scored.lost)} of {len(batch)} instances were not scored, {instance!r} for one: {reason}"
    return (
        f"phase {phase} gave no preference pair from {len(batch)} instances: no sampled rewrite beats another by "
        f"{config.minimum_gap} nats of log R; lower minimum_gap, sample more, or warm-start the policy further"
    )


def _record(
    phase: int,
    batch: Sequence[TrainingInstance],
    scored: Scored,
    rows: Sequence[Row],
    cursor: Cursor,
    observed: dict[str, float],
    seconds: dict[str, float],
) -> dict[str, Any]:
    candidates = list(scored.candidates.values())
    rewards = np.array([c.log_reward for row in candidates for c in row])
    samples = np.array([c.samples for row in candidates for c in row])
    pairs = [p for row in rows for p in row.pairs]
    lengths = np.array([[len(p.chosen.token_ids), len(p.rejected.token_ids)] for p in pairs], float)
    gaps = np.array([p.gap for p in pairs])
    length_gap = lengths[:, 0] - lengths[:, 1]
    varied = len(pairs) > 1 and length_gap.std() > 0 and gaps.std() > 0
    roles = Counter(
        "identity_chosen" if p.chosen.identity else "identity_rejected" if p.rejected.identity else "between_samples"
        for p in pairs
    )
    facts = dict(scored.sampled)
    parts = {part: facts.pop(f"{part}_seconds") for part in ("sample", "score")}
    return {
        "phase": phase,
        "policy_version": scored.policy_version,
        "instances": len(batch),
        "instances_without_pair": len(batch) - len(rows) - len(scored.lost),
        "instances_lost": scored.lost,
        **facts,
        "distinct_candidates": len(rewards),
        "pairs": len(pairs),
        "packed_tokens": sum(row.tokens for row in rows),
        "pair_roles": dict(sorted(roles.items())),
        "mean_sampled_log_reward": float((rewards * samples).sum() / max(1, samples.sum())),
        "mean_best_log_reward": float(np.mean([max(c.log_reward for c in row) for row in candidates])),
        "mean_pair_gap": float(gaps.mean()),
        "mean_chosen_tokens": float(lengths[:, 0].mean()),
        "mean_rejected_tokens": float(lengths[:, 1].mean()),
        "length_reward_correlation": float(np.corrcoef(length_gap, gaps)[0, 1]) if varied else 0.0,
        "optimizer_steps": cursor.step,
        **cursor.summary(),
        "delta": cursor.shift.delta,
        "observed": observed,
        "seconds": {**parts, **seconds},
    }


def _report(records: Sequence[dict[str, Any]]) -> TrainingReport:
    return TrainingReport(
        len(records),
        sum(r["rollouts"] for r in records),
        sum(r["pairs"] for r in records),
        sum(r["optimizer_steps"] for r in records),
        len(records),
        sum(len(r["instances_lost"]) for r in records),
        tuple(records),
    )


class _Clock:
    """Seconds by part of a phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.seconds[name] = round(now - self._since, 3)
        self._since = now
