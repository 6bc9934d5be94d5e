"""Optimizer steps on preference rows: the reference once, then micro-batches that add up to the whole step's loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from corewrite.rewriter import Rewriter
from corewrite.training import parallel
from corewrite.training.config import TrainingConfig
from corewrite.training.losses import PairLogProbs, RewardShift, mpo_losses
from corewrite.training.rows import Row, Step, row_log_probs

_WARM_UP = 10
_NORMED = 4
_TALLIED = ("preference", "quality", "generation", "total", "rho_chosen", "rho_rejected", "accuracy", "pairs")

Progress = Callable[[int, int], None]
Reference = dict[tuple[int, ...], tuple[Tensor, Tensor]]
"""The reference's log-probabilities by micro-batch: of the chosen and the rejected responses, [pairs] each."""


@dataclass(frozen=True)
class Cursor:
    """Where a phase stands: all that its next step needs beside weights and optimizer.

    Attributes:
        step: Steps done.
        shift: Reward shift after them.
        sums: Sums over their pairs, for the phase's record.
        gradient_norms: Norm of each weighted term's gradient over a few rows, where the phase begins.
        clipped: Steps whose gradient was clipped.
    """

    step: int = 0
    shift: RewardShift = field(default_factory=RewardShift)
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_TALLIED, 0.0))
    gradient_norms: dict[str, float] = field(default_factory=dict)
    clipped: int = 0

    def summary(self) -> dict[str, Any]:
        """Means over pairs: each unweighted loss and their weighted sum (nats), implicit rewards, accuracy; share clipped.

        `rho_chosen` falling while the margin grows is likelihood displacement.
        """
        mean = {name: value / max(1.0, self.sums["pairs"]) for name, value in self.sums.items()}
        return {
            "losses": {name: mean[name] for name in _TALLIED[:4]},
            "gradient_norms": self.gradient_norms,
            **{name: mean[name] for name in ("rho_chosen", "rho_rejected", "accuracy")},
            "clipped": self.clipped / max(1, self.step),
        }


def new_optimizer(policy: Rewriter, config: TrainingConfig) -> torch.optim.Adam:
    """The optimizer that lives through all phases; it holds the parameters that are trained (of an adapter, only those)."""
    return torch.optim.Adam(policy.trained_parameters, config.learning_rate, eps=config.adam_epsilon, fused=True)


@torch.no_grad()
def reference_log_probs(
    reference: Rewriter,
    rows: Sequence[Row],
    steps: Sequence[Step],
    config: TrainingConfig,
    begin: int = 0,
    progress: Progress = lambda done, total: None,
) -> Reference:
    """The reference's side of every pair, once per phase, in the very micro-batches and precision of the gradient pass.

    So a reference equal to the policy gives rho of exactly 0. Steps before `begin` are left out.
    """
    reference.model.eval()
    found = {}
    for done, step in enumerate(steps[begin:], begin):
        for micro_batch in parallel.share(step.micro_batches):
            with _precision(reference, config):
                found[micro_batch] = row_log_probs(reference, [rows[i] for i in micro_batch])
        progress(done + 1, len(steps))
    return found


def optimise(
    policy: Rewriter,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[Row],
    steps: Sequence[Step],
    reference: Reference,
    cursor: Cursor,
    config: TrainingConfig,
    *,
    phase: int,
    steps_before: int,
    after_step: Callable[[Cursor], None] = lambda cursor: None,
) -> Cursor:
    """The phase's steps from `cursor` on; changes policy and optimizer in place.

    Dropout stays off: reference and policy must differ by their weights alone.

    Args:
        policy: What is trained.
        optimizer: Its optimizer.
        rows: Preferences of the phase.
        steps: From `plan_steps`.
        reference: From `reference_log_probs`, of the steps that are left.
        cursor: Where to begin.
        config: Settings.
        phase: For the learning rate.
        steps_before: Optimizer steps of earlier phases, for the warm-up.
        after_step: Called with the cursor after each step.

    Raises:
        ValueError: a loss or gradient is not a number; the message names an instance.
    """
    policy.model.eval()
    parameters = policy.trained_parameters
    for step in steps[cursor.step :]:
        optimizer.zero_grad(set_to_none=True)
        sums, seen = dict.fromkeys(_TALLIED, 0.0), RewardShift()
        delta = cursor.shift.delta if config.running_delta else 0.0
        norms = cursor.gradient_norms or _gradient_norms(policy, rows, step, reference, delta, config)
        for micro_batch in parallel.share(step.micro_batches):
            members = [rows[i] for i in micro_batch]
            with _precision(policy, config):
                chosen, rejected = row_log_probs(policy, members)
            batch = _batch(members, chosen, rejected, *reference[micro_batch])
            losses = mpo_losses(batch, config.beta, delta, length_normalised=config.length_normalised)
            weighted = {name: config.weights[name] * value for name, value in losses.items()}
            total = torch.stack(list(weighted.values())).sum(0)
            _refuse_nan(total, members, phase, cursor.step)
            (total.sum() / step.pairs).backward()  # type: ignore[no-untyped-call]
            rho_chosen, rho_rejected = batch.rho_chosen.detach(), batch.rho_rejected.detach()
            seen = seen.after(*batch.ratios(per_token=config.length_normalised), config.beta)
            for name, value in losses.items():
                sums[name] += float(value.detach().sum())
            sums["total"] += float(total.detach().sum())
            sums["rho_chosen"] += float(rho_chosen.sum())
            sums["rho_rejected"] += float(rho_rejected.sum())
            sums["accuracy"] += float((rho_chosen > rho_rejected).sum())
            sums["pairs"] += len(chosen)
        for parameter in parameters:
            if parameter.grad is None:  # no micro-batch fell to this process: it takes the others' step all the same
                parameter.grad = torch.zeros_like(parameter)
        parallel.add_up([p.grad for p in parameters if p.grad is not None])
        sums = parallel.sum_over_processes({**sums, "shift_total": seen.total, "shift_count": seen.count})
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(phase) * min(1.0, (steps_before + cursor.step + 1) / _WARM_UP)
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        if not torch.isfinite(norm):
            raise ValueError(f"the gradient of phase {phase}, step {cursor.step} is not a number: lower the learning rate")
        optimizer.step()
        cursor = Cursor(
            cursor.step + 1,
            cursor.shift.plus(RewardShift(sums["shift_total"], int(sums["shift_count"]))),
            {name: cursor.sums[name] + sums[name] for name in _TALLIED},
            norms,
            cursor.clipped + int(norm > config.max_grad_norm),
        )
        after_step(cursor)
    return cursor


def _batch(
    members: Sequence[Row], chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor
) -> PairLogProbs:
    pairs = [pair for row in members for pair in row.pairs]
    lengths = [
        torch.tensor([len(c.token_ids) for c in side], dtype=chosen.dtype, device=chosen.device)
        for side in ([p.chosen for p in pairs], [p.rejected for p in pairs])
    ]
    return PairLogProbs(chosen, rejected, reference_chosen, reference_rejected, *lengths)


def _precision(policy: Rewriter, config: TrainingConfig) -> torch.autocast:
    return torch.autocast(policy.model.device.type, torch.bfloat16, enabled=config.precision == "bfloat16")


def _refuse_nan(total: Tensor, members: Sequence[Row], phase: int, step: int) -> None:
    if torch.isfinite(total).all():
        return
    owners = [row.instance_id for row in members for _ in row.pairs]
    where = owners[int(torch.nonzero(~torch.isfinite(total))[0])]
    raise ValueError(f"the loss of phase {phase}, step {step} is not a number at instance {where!r}: lower the learning rate")


def _gradient_norms(
    policy: Rewriter, rows: Sequence[Row], step: Step, reference: Reference, delta: float, config: TrainingConfig
) -> dict[str, float]:
    """Norm of each weighted term's gradient, over a few rows only: each term costs a backward pass."""
    shares = parallel.share(step.micro_batches)
    if not shares:
        return {}
    members = [rows[i] for i in shares[0][:_NORMED]]
    pairs = sum(len(row.pairs) for row in members)
    with _precision(policy, config):
        chosen, rejected = row_log_probs(policy, members)
    batch = _batch(members, chosen, rejected, *(side[:pairs] for side in reference[shares[0]]))
    losses = mpo_losses(batch, config.beta, delta, length_normalised=config.length_normalised)
    parameters, norms = policy.trained_parameters, {}
    for name, value in losses.items():
        loss = config.weights[name] * value.mean()
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        norms[name] = float(torch.stack([g.norm() for g in gradients if g is not None]).norm())
    return norms
