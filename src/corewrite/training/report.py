"""What is written down of a phase, and of a finished run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import cast

import numpy as np

from corewrite.domain import TrainingInstance
from corewrite.training.candidates import Scored
from corewrite.training.optimise import Cursor
from corewrite.training.records import PhaseRecord
from corewrite.training.rows import Row


@dataclass(frozen=True)
class TrainingReport:
    """A finished run.

    Attributes:
        phases: Phases done, earlier runs of the same folder included.
        rollouts: Rewrites sampled.
        pairs: Preference pairs trained on.
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
    records: tuple[PhaseRecord, ...]


class PhaseClock:
    """Wall-clock seconds of the parts of a phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = perf_counter()

    def lap(self, name: str) -> None:
        """Name the part that ends now."""
        now = perf_counter()
        self.seconds[name] = round(now - self._since, 3)
        self._since = now


def phase_record(
    phase: int,
    batch: Sequence[TrainingInstance],
    scored: Scored,
    rows: Sequence[Row],
    cursor: Cursor,
    observed: dict[str, float],
    seconds: dict[str, float],
) -> PhaseRecord:
    """The record of a finished phase.

    Args:
        phase: Its number, from 0.
        batch: Instances drawn for it.
        scored: Their scored candidates.
        rows: The preference pairs trained on.
        cursor: After the last optimizer step.
        observed: What the observer measured.
        seconds: Of the parts of the phase.
    """
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
    record = {
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
    return cast(PhaseRecord, record)


def build_report(records: Sequence[PhaseRecord]) -> TrainingReport:
    """Sums over the records of all phases."""
    return TrainingReport(
        len(records),
        sum(r["rollouts"] for r in records),
        sum(r["pairs"] for r in records),
        sum(r["optimizer_steps"] for r in records),
        len(records),
        sum(len(r["instances_lost"]) for r in records),
        tuple(records),
    )
