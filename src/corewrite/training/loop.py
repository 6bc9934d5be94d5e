"""Semi-online Mixed Preference Optimization: the loop.

Compared with on-policy RL (PPO, GRPO) it leaves out the value model, advantages, importance weights and a sync per step: a
phase samples once from frozen weights, and only the best and worst few of the N samples are ever back-propagated through.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from corewrite.domain import TrainingInstance, sha256_json
from corewrite.rewriter import Rewrite, Rewriter
from corewrite.training.checkpoint import RunFolder, pack_state, unpack_state
from corewrite.training.config import TrainingConfig
from corewrite.training.losses import RewardShift
from corewrite.training.optimise import PromptedPair, StepStats, new_optimizer, optimise, prompted, reference_log_probs
from corewrite.training.pairs import Candidate, select_pairs
from corewrite.training.sampler import InProcessSampler
from corewrite.training.score import Reward, score_candidates

Progress = Callable[[str, int, int], None]


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
        records: The phases' records.
    """

    phases: int
    rollouts: int
    pairs: int
    optimizer_steps: int
    syncs: int
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
    observe: PhaseObserver = lambda phase, policy: {},
    progress: Progress = lambda what, done, total: None,
) -> TrainingReport:
    """Train `policy` in place; a killed run continues from its last whole phase.

    Args:
        policy: Where to start: the warm start or the champion. It is also the reference.
        instances: Training instances; each phase takes the next ones of one random order.
        reward: log R of texts.
        config: Settings.
        folder: Run folder.
        seed: The one seed.
        provenance: What the reward and the data are (hashes, window); a run resumes only under the same.
        observe: Called after each phase.
        progress: Called with (what, done, total).

    Raises:
        ValueError: no instance, no pair in a phase, or a reward or loss that is not a number.
        ResumeError: the folder holds another run.
    """
    if not instances:
        raise ValueError("training needs instances: the log holds no search with both D+ and D-")
    run = RunFolder(folder, _identity(policy, instances, config, seed, provenance))
    reference, optimizer, shift = policy.copy(), new_optimizer(policy, config), RewardShift()
    if (last := run.last()) is not None:
        unpack_state(last.tensors, policy.model, optimizer, reference.model if config.refresh_reference else None)
        shift = RewardShift(last.record["shift_total"], last.record["shift_count"])
    sampler = InProcessSampler(policy)

    for phase in range(len(run.records()), config.phases):
        clock = _Clock()
        version = sampler.sync(policy)  # once per phase
        if config.refresh_reference:
            reference.model.load_state_dict(policy.model.state_dict())
        batch = _draw(instances, config.instances_per_phase, seed, phase)
        rollouts = sampler.sample(
            batch, config.samples, expected=version, seed=seed, phase=phase, max_new_tokens=config.max_new_tokens,
            progress=lambda done, total: progress("sample", done, total),
        )  # fmt: skip
        clock.lap("sample")
        candidates = score_candidates(batch, rollouts.rewrites, policy, reward)
        clock.lap("score")
        pairs = _pairs(policy, batch, candidates, config)
        if not pairs:
            raise ValueError(
                f"phase {phase} gave no preference pair from {len(batch)} instances: no sampled rewrite beats another by "
                f"{config.minimum_gap} nats of log R; lower minimum_gap, sample more, or warm-start the policy further"
            )
        reference_side = reference_log_probs(reference, pairs, config.tokens_per_micro_batch)
        clock.lap("reference")
        steps_before = sum(r["optimizer_steps"] for r in run.records())
        shift, stats = optimise(
            policy, optimizer, pairs, reference_side, shift, config, seed=seed, phase=phase, steps_before=steps_before,
            progress=lambda done, total: progress("learn", done, total),
        )  # fmt: skip
        clock.lap("learn")
        observed = observe(phase, policy)
        clock.lap("observe")
        record = _record(phase, version, batch, rollouts.rewrites, candidates, pairs, stats, shift, observed, clock.seconds)
        kept_reference = reference.model if config.refresh_reference else None
        run.write_phase(phase, record, batch, candidates, pack_state(policy.model, optimizer, kept_reference))
    return _report(run.records())


def _identity(
    policy: Rewriter, instances: Sequence[TrainingInstance], config: TrainingConfig, seed: int, provenance: dict[str, Any]
) -> dict[str, Any]:
    return {
        "config": config.model_dump(),
        "seed": seed,
        "start": policy.policy_hash,
        "instances": sha256_json([[x.instance_id, x.query.key, x.positives, x.negatives] for x in instances]),
        "provenance": provenance,
    }


def _draw(instances: Sequence[TrainingInstance], n: int, seed: int, phase: int) -> list[TrainingInstance]:
    """The next `n` of the run's random order, starting over (in the same order) where it ends."""
    order = np.random.default_rng([seed, 72]).permutation(len(instances))
    n = min(n, len(instances))
    return [instances[order[(phase * n + i) % len(instances)]] for i in range(n)]


def _pairs(
    policy: Rewriter, batch: Sequence[TrainingInstance], candidates: Sequence[Sequence[Candidate]], config: TrainingConfig
) -> list[PromptedPair]:
    return [
        pair
        for instance, row in zip(batch, candidates, strict=True)
        for pair in prompted(policy, instance.query, instance.instance_id, select_pairs(row, config.k, config.minimum_gap))
    ]


def _record(
    phase: int,
    version: str,
    batch: Sequence[TrainingInstance],
    rewrites: Sequence[Sequence[Rewrite]],
    candidates: Sequence[Sequence[Candidate]],
    pairs: Sequence[PromptedPair],
    stats: StepStats,
    shift: RewardShift,
    observed: dict[str, float],
    seconds: dict[str, float],
) -> dict[str, Any]:
    by_text = [{c.text: c.log_reward for c in row} for row in candidates]
    sampled = [
        values.get(r.text, values[row[0].text])
        for row, values, samples in zip(candidates, by_text, rewrites, strict=True)
        for r in samples
    ]
    every = [r for samples in rewrites for r in samples]
    with_pair = len({p.instance_id for p in pairs})
    chosen_lengths = np.array([len(p.pair.chosen.token_ids) for p in pairs])
    rejected_lengths = np.array([len(p.pair.rejected.token_ids) for p in pairs])
    gaps = np.array([p.pair.gap for p in pairs])
    length_gap = (chosen_lengths - rejected_lengths).astype(float)
    varied = len(pairs) > 1 and length_gap.std() > 0 and gaps.std() > 0
    roles = Counter(
        "identity_chosen" if p.pair.chosen.identity else "identity_rejected" if p.pair.rejected.identity else "between_samples"
        for p in pairs
    )
    return {
        "phase": phase,
        "policy_version": version,
        "instances": len(batch),
        "instances_without_pair": len(batch) - with_pair,
        "rollouts": len(every),
        "distinct_candidates": sum(map(len, candidates)),
        "malformed": sum(r.malformed for r in every),
        "not_ended": sum(not r.ended for r in every),
        "pairs": len(pairs),
        "pair_roles": dict(sorted(roles.items())),
        "mean_sampled_log_reward": float(np.mean(sampled)),
        "mean_best_log_reward": float(np.mean([max(v.values()) for v in by_text])),
        "mean_pair_gap": float(gaps.mean()),
        "mean_chosen_tokens": float(chosen_lengths.mean()),
        "mean_rejected_tokens": float(rejected_lengths.mean()),
        "length_reward_correlation": float(np.corrcoef(length_gap, gaps)[0, 1]) if varied else 0.0,
        # Monte-Carlo estimate of the sampling distribution's entropy per token.
        "entropy_per_token": -sum(r.log_prob for r in every) / sum(len(r.token_ids) for r in every),
        "optimizer_steps": stats.steps,
        **{k: v for k, v in asdict(stats).items() if k != "steps"},
        "delta": shift.delta,
        "shift_total": shift.total,
        "shift_count": shift.count,
        "observed": observed,
        "seconds": seconds,
    }


def _report(records: Sequence[dict[str, Any]]) -> TrainingReport:
    return TrainingReport(
        len(records), sum(r["rollouts"] for r in records), sum(r["pairs"] for r in records),
        sum(r["optimizer_steps"] for r in records), len(records), tuple(records),
    )  # fmt: skip


class _Clock:
    """Seconds by part of a phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.seconds[name] = round(now - self._since, 3)
        self._since = now
