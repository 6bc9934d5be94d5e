"""Trainer-sampler log-probability mismatch: whether an engine samples from the policy that was synced to it."""

from collections.abc import Sequence

import torch

from corewrite.rewriter import Completion, Rewriter


class SamplerMismatchError(RuntimeError):
    """An engine whose log-probabilities are not the trainer's right after a sync: it samples from another distribution."""


@torch.no_grad()
def largest_mismatch(policy: Rewriter, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[Completion]]) -> float:
    """Largest difference per token between an engine's log-probabilities and the trainer's, nats; NaN counts as infinite."""
    policy.model.eval()
    own = policy.log_probs(prompts, [[c.token_ids for c in row] for row in completions])
    theirs = torch.zeros_like(own)
    for i, c in enumerate(c for row in completions for c in row):
        theirs[i, : len(c.log_probs)] = torch.tensor(c.log_probs)
    return float((own - theirs).abs().max().nan_to_num(nan=torch.inf))
