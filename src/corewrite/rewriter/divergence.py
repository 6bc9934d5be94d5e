"""Exact KL divergence between two policies' next-token distributions along a text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from corewrite.rewriter.artifact import Rewriter
from corewrite.rewriter.log_probs import head_at, length_buckets

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
_TOKENS = 8_192


def kl_along(
    policy: Rewriter, other: Rewriter, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> FloatArray:
    """Mean over the tokens of each response of KL(policy || other) of the next token, nats, float64 [sequences].

    Args:
        policy: Whose distribution the divergence is taken under.
        other: Compared with; of the same vocabulary.
        prompts: Prompt ids of each sequence, not empty.
        responses: Response ids of each, end-of-sequence included, not empty.

    Raises:
        ValueError: the policies have different vocabularies.
    """
    if policy.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise ValueError("the policies have different vocabularies: their next-token distributions cannot be compared")
    found = np.zeros(len(prompts))
    with torch.inference_mode():
        for group in length_buckets([len(x) + len(y) for x, y in zip(prompts, responses, strict=True)], _TOKENS):
            inputs = [[*prompts[i], *responses[i][:-1]] for i in group]
            lengths = [len(responses[i]) for i in group]
            at = np.concatenate([len(prompts[i]) - 1 + np.arange(len(responses[i])) for i in group])
            row = np.repeat(np.arange(len(group)), lengths)
            own, others = (_log_probs(p.model, inputs, row, at) for p in (policy, other))
            kl = (own.exp() * (own - others)).sum(-1).clamp_min(0).double().cpu().numpy()
            found[group] = np.bincount(row, kl, len(group)) / lengths
    return found


def _log_probs(
    model: Any, inputs: Sequence[Sequence[int]], row: npt.NDArray[np.int64], at: npt.NDArray[np.int64]
) -> torch.Tensor:
    """Log-probabilities of every next token at (row, at), float32 [positions, vocabulary]."""
    device = next(model.parameters()).device
    ids = torch.zeros(len(inputs), max(map(len, inputs)), dtype=torch.int64)
    for i, tokens in enumerate(inputs):
        ids[i, : len(tokens)] = torch.tensor(tokens)
    with head_at(model, torch.from_numpy(row).to(device), torch.from_numpy(at).to(device)):
        logits = model(input_ids=ids.to(device), use_cache=False).logits
    return torch.log_softmax(logits.float(), -1)
