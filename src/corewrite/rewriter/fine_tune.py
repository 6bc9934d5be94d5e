"""Supervised fine-tuning: the warm start."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from corewrite.rewriter.artifact import Rewriter
from corewrite.rewriter.examples import Example
from corewrite.rewriter.log_probs import fast_precision, length_buckets, response_log_probs

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FineTuneReport:
    """What fine-tuning did.

    Attributes:
        steps: Optimizer steps.
        first_loss, last_loss: Mean negative log-likelihood of a target token, nats, over the first and last twentieth.
        examples: How many examples.
    """

    steps: int
    first_loss: float
    last_loss: float
    examples: int


def fine_tune(
    rewriter: Rewriter,
    examples: Sequence[Example],
    *,
    epochs: float,
    seed: int,
    learning_rate: float = 2e-3,
    batch: int = 64,
    progress: Progress = lambda done, total: None,
) -> FineTuneReport:
    """Fit target tokens and end-of-sequence; prompt tokens are not learnt. Changes the rewriter in place.

    Examples whose query no prompt holds are left out.

    Args:
        rewriter: What to train.
        examples: What to learn.
        epochs: Passes over the examples.
        seed: For their order.
        learning_rate: Peak, after a warm-up over a twentieth of the steps, then a cosine down to a tenth.
        batch: Examples per optimizer step.
        progress: Called with (steps done, steps in all).

    Raises:
        ValueError: no example, or a loss that is not a number.
    """
    model, template = rewriter.model, rewriter.template
    examples = [e for e in examples if not template.too_long(e.query)]
    if not examples:
        raise ValueError("fine-tuning needs examples: the log holds no search that satisfied")
    prompts = [template.encode(e.query) for e in examples]
    targets = [template.encode_target(e.target) for e in examples]
    rng = np.random.default_rng([seed, 61])
    torch.manual_seed(seed)  # for dropout, where the model has any
    steps = max(1, int(epochs * len(examples) / batch))
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min(1.0, (s + 1) / warm) * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * min(1.0, s / steps)))),
    )
    device = next(model.parameters()).device
    model.train()
    losses = []
    batches: list[list[int]] = []
    lengths = [len(p) + len(t) for p, t in zip(prompts, targets, strict=True)]
    for step in range(steps):
        if not batches:
            batches = _similar_batches(lengths, batch, rng)
        chosen = batches.pop()
        with fast_precision(device):
            scored = response_log_probs(model, [prompts[i] for i in chosen], [targets[i] for i in chosen])
        loss = -scored.sum() / sum(len(targets[i]) for i in chosen)
        if not torch.isfinite(loss):
            raise ValueError(f"the loss of fine-tuning step {step} is not a number: lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        progress(step + 1, steps)
    model.eval()
    tail = max(1, steps // 20)
    return FineTuneReport(steps, float(np.mean(losses[:tail])), float(np.mean(losses[-tail:])), len(examples))


def _similar_batches(lengths: Sequence[int], size: int, rng: np.random.Generator) -> list[list[int]]:
    """Batches of random examples of similar length: pools of 20 batches are sorted by length and cut."""
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), 20 * size):
        pool = sorted(order[start : start + 20 * size].tolist(), key=lambda i: lengths[i])
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def mean_token_loss(rewriter: Rewriter, examples: Sequence[Example], budget: int = 16_384) -> float:
    """Mean negative log-likelihood of a target token over `examples`, nats."""
    prompts = [rewriter.template.encode(e.query) for e in examples]
    targets = [rewriter.template.encode_target(e.target) for e in examples]
    total = 0.0
    with torch.inference_mode():
        for group in length_buckets([len(p) + len(t) for p, t in zip(prompts, targets, strict=True)], budget):
            total -= float(response_log_probs(rewriter.model, [prompts[i] for i in group], [targets[i] for i in group]).sum())
    return total / sum(map(len, targets))
