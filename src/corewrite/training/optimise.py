"""Optimizer steps on preference rows: the reference once, then micro-batches that add up to the whole step's loss."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corewrite.rewriter import Rewriter, on_device
from corewrite.training import parallel
from corewrite.training.config import TrainingConfig
from corewrite.training.gradient_pass import GradientPass
from corewrite.training.losses import PairLogProbs, RewardShift, mpo_losses
from corewrite.training.rows import Row, Step

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
    gradient_pass: GradientPass | None = None,
) -> Reference:
    """The reference's side of every pair, once per phase, in the very micro-batches and precision of the gradient pass.

    So a reference equal to the policy gives rho of exactly 0. Steps before `begin` are left out.
    """
    passes = gradient_pass or GradientPass(reference, config)
    reference.model.eval()
    held, found = passes.holding(reference), {}
    for done, step in enumerate(steps[begin:], begin):
        for micro_batch in parallel.share(step.micro_batches):
            with passes.of_reference():
                chosen, rejected = passes.log_probs(held, [rows[i] for i in micro_batch])
            found[micro_batch] = chosen.detach(), rejected.detach()
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
    gradient_pass: GradientPass | None = None,
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
        gradient_pass: Of the policy, which the reference went through too; None: a new one.

    Raises:
        ValueError: a loss or gradient is not a number; the message names an instance.
    """
    passes = gradient_pass or GradientPass(policy, config)
    policy.model.eval()
    parameters = policy.trained_parameters
    for step in steps[cursor.step :]:
        optimizer.zero_grad(set_to_none=True)
        delta = cursor.shift.delta if config.running_delta else 0.0
        held = passes.holding(policy)
        norms = cursor.gradient_norms or _gradient_norms(passes, held, rows, step, reference, delta, config)
        tally = _Tally(policy.model.device)
        for micro_batch in parallel.share(step.micro_batches):
            members = [rows[i] for i in micro_batch]
            batch = _batch(members, *passes.log_probs(held, members), *reference[micro_batch])
            losses = mpo_losses(batch, config.beta, delta, length_normalised=config.length_normalised)
            weighted = {name: config.weights[name] * value for name, value in losses.items()}
            total = torch.stack(list(weighted.values())).sum(0)
            (total.sum() / step.pairs).backward()  # type: ignore[no-untyped-call]
            tally.add(members, batch, losses, total, config)
        sums = tally.sums(phase, cursor.step)
        for parameter in parameters:
            if parameter.grad is None:  # no micro-batch fell to this process: it takes the others' step all the same
                parameter.grad = torch.zeros_like(parameter)
        parallel.add_up([p.grad for p in parameters if p.grad is not None])
        sums = parallel.sum_over_processes(sums)
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
        on_device(np.array([len(c.token_ids) for c in side]), chosen.device).to(chosen.dtype)
        for side in ([p.chosen for p in pairs], [p.rejected for p in pairs])
    ]
    return PairLogProbs(chosen, rejected, reference_chosen, reference_rejected, *lengths)


class _Tally:
    """Sums over the pairs of a step, kept on the device: it is waited for once a step."""

    def __init__(self, device: torch.device) -> None:
        self._total = torch.zeros(len(_TALLIED), dtype=torch.float64, device=device)
        self._losses: list[tuple[Sequence[Row], Tensor]] = []
        self._pairs = 0

    def add(
        self, members: Sequence[Row], batch: PairLogProbs, losses: dict[str, Tensor], total: Tensor, config: TrainingConfig
    ) -> None:
        rho_chosen, rho_rejected = batch.rho_chosen.detach(), batch.rho_rejected.detach()
        ratios = [r.detach() for r in batch.ratios(per_token=config.length_normalised)]
        sums = [losses[name].detach().sum() for name in _TALLIED[:3]]
        sums += [total.detach().sum(), rho_chosen.sum(), rho_rejected.sum(), (rho_chosen > rho_rejected).sum()]
        sums += [config.beta * (ratios[0].double().sum() + ratios[1].double().sum())]
        self._total += torch.stack([value.double() for value in sums])
        self._losses.append((members, total.detach()))
        self._pairs += len(rho_chosen)

    def sums(self, phase: int, step: int) -> dict[str, float]:
        """By name.

        Raises:
            ValueError: a loss is not a number; the message names its instance.
        """
        found = dict(zip((*_TALLIED[:-1], "shift_total"), self._total.tolist(), strict=True))
        found |= {"pairs": self._pairs, "shift_count": 2 * self._pairs}
        if not math.isfinite(found["total"]):
            owners = [row.instance_id for members, _ in self._losses for row in members for _ in row.pairs]
            wrong = ~torch.isfinite(torch.cat([total for _, total in self._losses]))
            if bool(wrong.any()):
                where = owners[int(torch.nonzero(wrong)[0])]
                raise ValueError(
                    f"the loss of phase {phase}, step {step} is not a number at instance {where!r}: lower the learning rate"
                )
        return found


def _gradient_norms(
    passes: GradientPass,
    held: Rewriter,
    rows: Sequence[Row],
    step: Step,
    reference: Reference,
    delta: float,
    config: TrainingConfig,
) -> dict[str, float]:
    """Norm of each weighted term's gradient, over a few rows only: each term costs a pass of its own."""
    shares = parallel.share(step.micro_batches)
    if not shares:
        return {}
    members = [rows[i] for i in shares[0][:_NORMED]]
    pairs = sum(len(row.pairs) for row in members)
    norms = {}
    for name, weight in config.weights.items():
        batch = _batch(members, *passes.log_probs(held, members), *(side[:pairs] for side in reference[shares[0]]))
        losses = mpo_losses(batch, config.beta, delta, length_normalised=config.length_normalised)
        gradients = torch.autograd.grad(weight * losses[name].mean(), held.trained_parameters, allow_unused=True)
        norms[name] = float(torch.stack([g.float().norm() for g in gradients if g is not None]).norm())
    return norms
