"""Check that a server samples from the weights just loaded: its log-probabilities on fixed prompts against the trainer's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from corewrite.domain import Query
from corewrite.rewriter import Completion, Rewriter

# Longer than a block of a prefix cache (16 tokens), so that one which outlived a reload is noticed too.
_PROBES = (
    "how to replace the rear brake pads of an old city bicycle at home without special tools",
    "best places to watch the sunrise near the sea in early spring with small children",
    "funny videos of cats and dogs playing in the snow for the first time last winter",
    "simple dinner recipes with rice, eggs and tomatoes for two people in twenty minutes",
)
NUM_PROBE_SAMPLES = 16
"""Next tokens sampled after each probe."""


def probe_prompts(policy: Rewriter) -> list[list[int]]:
    """Fixed queries as prompts. No encoding has more tokens than letters: what is cut so fits every template."""
    limit = max(1, policy.template.room - 2)
    return [policy.template.encode(Query(text[:limit])) for text in _PROBES]


def next_token_log_probs(model: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
    """[prompts, vocabulary] log-probabilities of what follows each prompt, float32, on the CPU."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        with torch.no_grad():
            rows = [model(input_ids=torch.tensor([list(prompt)], device=device)).logits[0, -1] for prompt in prompts]
    finally:
        model.train(training)
    log_probs = torch.stack(rows).float().log_softmax(-1).cpu()
    if bool(log_probs.isnan().any()):
        raise ValueError("the policy's log-probabilities are not numbers: its weights have diverged, nothing was synced")
    return log_probs


def largest_probe_mismatch(expected: Tensor, completions: Sequence[Sequence[Completion]]) -> float:
    """Largest difference between a server's and the trainer's log-probabilities of the sampled next tokens, nats.

    Args:
        expected: The trainer's, see `next_token_log_probs`.
        completions: The server's samples after each prompt; the first token of each counts.
    """
    return max(
        abs(completion.log_probs[0] - float(row[completion.token_ids[0]]))
        for row, of_prompt in zip(expected, completions, strict=True)
        for completion in of_prompt
    )
