"""Optimizer steps on preference pairs: reference once, then steps of micro-batches that add up to the whole batch's loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corewrite.domain import Query
from corewrite.rewriter import Rewriter, length_buckets, response_log_probs
from corewrite.training.config import TrainingConfig
from corewrite.training.losses import PairLogProbs, RewardShift, mpo_losses
from corewrite.training.pairs import Pair

_WARM_UP = 10


@dataclass(frozen=True)
class PromptedPair:
    """A pair with its prompt.

    Attributes:
        instance_id: Whose.
        prompt: Prompt ids.
        pair: Chosen and rejected.
    """

    instance_id: str
    prompt: tuple[int, ...]
    pair: Pair

    @property
    def tokens(self) -> int:
        """Tokens of the longer of its two sequences."""
        return len(self.prompt) + max(len(self.pair.chosen.token_ids), len(self.pair.rejected.token_ids))


@dataclass(frozen=True)
class StepStats:
    """Sums over the pairs of a phase, for its record (means are over pairs; gradient norms over steps).

    Attributes:
        steps: Optimizer steps.
        losses: Mean of each unweighted loss and of their weighted sum, nats.
        gradient_norms: Norm of each weighted term's gradient at the phase's first step.
        rho_chosen, rho_rejected: Mean log pi / pi_ref; rho_chosen falling while the margin grows is likelihood displacement.
        accuracy: Share of pairs whose chosen has the larger implicit reward.
        clipped: Share of steps whose gradient was clipped.
    """

    steps: int
    losses: dict[str, float]
    gradient_norms: dict[str, float]
    rho_chosen: float
    rho_rejected: float
    accuracy: float
    clipped: float


def new_optimizer(policy: Rewriter, config: TrainingConfig) -> torch.optim.Adam:
    """The optimizer that lives through all phases."""
    return torch.optim.Adam(policy.model.parameters(), config.learning_rate, eps=config.adam_epsilon)


def prompted(policy: Rewriter, query: Query, instance_id: str, pairs: Sequence[Pair]) -> list[PromptedPair]:
    """Pairs with the prompt of their query."""
    prompt = tuple(policy.template.encode(query))
    return [PromptedPair(instance_id, prompt, pair) for pair in pairs]


def pair_log_probs(model: Any, pairs: Sequence[PromptedPair]) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities of the chosen and of the rejected responses, each [pairs]."""
    prompts = [list(p.prompt) for p in pairs]
    responses = [p.pair.chosen.token_ids for p in pairs] + [p.pair.rejected.token_ids for p in pairs]
    total = response_log_probs(model, prompts + prompts, responses).sum(1)
    return total[: len(pairs)], total[len(pairs) :]


@torch.inference_mode()
def reference_log_probs(reference: Rewriter, pairs: Sequence[PromptedPair], budget: int) -> tuple[Tensor, Tensor]:
    """The reference's side of every pair, once per phase: two tensors [pairs]."""
    chosen, rejected = torch.empty(len(pairs)), torch.empty(len(pairs))
    for group in _micro_batches(pairs, range(len(pairs)), budget):
        chosen[group], rejected[group] = pair_log_probs(reference.model, [pairs[i] for i in group])
    return chosen, rejected


def optimise(
    policy: Rewriter,
    optimizer: torch.optim.Optimizer,
    pairs: Sequence[PromptedPair],
    reference: tuple[Tensor, Tensor],
    shift: RewardShift,
    config: TrainingConfig,
    *,
    seed: int,
    phase: int,
    steps_before: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[RewardShift, StepStats]:
    """One pass over the pairs in random order; changes policy and optimizer in place.

    Args:
        policy: What is trained.
        optimizer: Its optimizer.
        pairs: Preferences of a phase, at least one.
        reference: From `reference_log_probs`.
        shift: Reward shift of earlier steps.
        config: Settings.
        seed, phase: For the order of the pairs.
        steps_before: Optimizer steps of earlier phases, for the warm-up.
        progress: Called with (steps done, steps in all).

    Raises:
        ValueError: a loss or gradient is not a number; the message names an instance.
    """
    order = np.random.default_rng([seed, phase, 71]).permutation(len(pairs))
    steps = -(-len(pairs) // config.pairs_per_step)
    weights = {
        "preference": config.weight_preference, "quality": config.weight_quality, "generation": config.weight_generation,
    }  # fmt: skip
    sums = dict.fromkeys([*weights, "total", "rho_chosen", "rho_rejected", "accuracy"], 0.0)
    gradient_norms: dict[str, float] = {}
    clipped = 0
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    policy.model.train()
    for step in range(steps):
        batch = order[step * config.pairs_per_step : (step + 1) * config.pairs_per_step].tolist()
        delta = shift.delta if config.running_delta else 0.0
        optimizer.zero_grad(set_to_none=True)
        rho: list[tuple[Tensor, Tensor]] = []
        for group in _micro_batches(pairs, batch, config.tokens_per_micro_batch):
            chosen, rejected = pair_log_probs(policy.model, [pairs[i] for i in group])
            lengths = torch.tensor([len(pairs[i].pair.chosen.token_ids) for i in group], dtype=chosen.dtype)
            log_probs = PairLogProbs(chosen, rejected, reference[0][group], reference[1][group], lengths)
            losses = mpo_losses(log_probs, config.beta, delta)
            total = torch.stack([weights[name] * value for name, value in losses.items()]).sum(0)
            if not torch.isfinite(total).all():
                where = pairs[group[int(torch.nonzero(~torch.isfinite(total))[0])]].instance_id
                raise ValueError(
                    f"the loss of phase {phase}, step {step} is not a number at instance {where!r}: lower the learning rate"
                )
            if step == 0 and not gradient_norms:
                gradient_norms = {
                    name: _norm(torch.autograd.grad(weights[name] * value.mean(), parameters, retain_graph=True))
                    for name, value in losses.items()
                }
            (total.sum() / len(batch)).backward()  # type: ignore[no-untyped-call]
            rho.append((log_probs.rho_chosen.detach(), log_probs.rho_rejected.detach()))
            for name, value in losses.items():
                sums[name] += float(value.detach().sum())
            sums["total"] += float(total.detach().sum())
        for group_in_order in optimizer.param_groups:
            group_in_order["lr"] = config.learning_rate_of(phase) * min(1.0, (steps_before + step + 1) / _WARM_UP)
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip)
        if not torch.isfinite(norm):
            raise ValueError(f"the gradient of phase {phase}, step {step} is not a number: lower the learning rate")
        clipped += int(norm > config.clip)
        optimizer.step()
        rho_chosen, rho_rejected = (torch.cat(side) for side in zip(*rho, strict=True))
        shift = shift.after(rho_chosen, rho_rejected, config.beta)
        sums["rho_chosen"] += float(rho_chosen.sum())
        sums["rho_rejected"] += float(rho_rejected.sum())
        sums["accuracy"] += float((rho_chosen > rho_rejected).sum())
        progress(step + 1, steps)
    policy.model.eval()
    mean = {name: value / len(pairs) for name, value in sums.items()}
    return shift, StepStats(
        steps, {name: mean[name] for name in (*weights, "total")}, gradient_norms, mean["rho_chosen"],
        mean["rho_rejected"], mean["accuracy"], clipped / steps,
    )  # fmt: skip


def _micro_batches(pairs: Sequence[PromptedPair], which: Sequence[int], budget: int) -> list[list[int]]:
    """Groups of pairs of similar length; both sequences of a pair are in the same group, so half the budget each."""
    which = list(which)
    return [[which[i] for i in g] for g in length_buckets([pairs[i].tokens for i in which], budget // 2)]


def _norm(gradients: Sequence[Tensor]) -> float:
    return float(torch.stack([g.norm() for g in gradients]).norm())
