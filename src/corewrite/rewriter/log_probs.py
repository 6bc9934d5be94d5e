"""Log-probabilities of responses: one function for warm start, policy and reference."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def response_log_probs(model: Any, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Tensor:
    """Per-token log-probabilities log pi(y_t | x, y_<t) of responses, untempered.

    The LM head is applied at response positions only.

    Args:
        model: A `transformers` causal LM.
        prompts: Prompt ids x of each sequence, not empty.
        responses: Response ids y of each sequence, end-of-sequence included, not empty.

    Returns:
        Float32 [sequences, longest response], 0 beyond each response's end, with gradients where enabled.
    """
    sequences = [[*x, *y] for x, y in zip(prompts, responses, strict=True)]
    longest, width = max(map(len, sequences)), max(map(len, responses))
    device = next(model.parameters()).device
    ids = torch.zeros((len(sequences), longest), dtype=torch.long)
    at = torch.zeros((len(sequences), width), dtype=torch.long)
    target = torch.zeros_like(at)
    used = torch.zeros((len(sequences), width), dtype=torch.bool)
    for i, (x, y) in enumerate(zip(prompts, responses, strict=True)):
        n = len(x) + len(y)
        ids[i, :n] = torch.tensor(sequences[i])
        at[i, : len(y)] = torch.arange(len(x) - 1, n - 1)
        target[i, : len(y)] = torch.tensor(list(y))
        used[i, : len(y)] = True
    ids, at, target, used = (t.to(device) for t in (ids, at, target, used))
    row = torch.arange(len(sequences), device=device)[:, None].expand_as(at)
    base, head = getattr(model, model.base_model_prefix, None), model.get_output_embeddings()
    # Right padding needs no mask: a causal model never looks at what comes later, and without one attention is faster.
    if base is None or base is model or head is None:
        logits = model(input_ids=ids).logits[row[used], at[used]]
    else:
        hidden = base(input_ids=ids, use_cache=False).last_hidden_state
        logits = head(hidden[row[used], at[used]])
    picked = torch.nn.functional.cross_entropy(logits.float(), target[used], reduction="none")
    out = torch.zeros(at.shape, dtype=torch.float32, device=device)
    return out.masked_scatter(used, -picked)


def fast_precision(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where the processor multiplies in it; weights and their updates stay in float32.

    For supervised fine-tuning. Differences of log-probabilities between policy and reference need float32.
    """
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def length_buckets(lengths: Sequence[int], budget: int, order: Sequence[int] | None = None) -> list[list[int]]:
    """Group sequences of similar length so that each group's padded size stays within `budget` tokens.

    Args:
        lengths: Tokens of each sequence.
        budget: Tokens of a padded group at most (a longer single sequence is a group of its own).
        order: Which sequences, in an order that breaks ties; default all.
    """
    groups: list[list[int]] = []
    for i in sorted(order if order is not None else range(len(lengths)), key=lambda i: lengths[i]):
        if groups and (len(groups[-1]) + 1) * lengths[i] <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
