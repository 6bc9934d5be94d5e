"""Log-probabilities of responses: one place for warm start, policy and reference."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

Ids = Sequence[int]


def response_log_probs(model: Any, prompts: Sequence[Ids], responses: Sequence[Ids], *, width_multiple: int = 1) -> Tensor:
    """Per-token log-probabilities log pi(y_t | x, y_<t) of responses, untempered, one sequence a row.

    The LM head is applied at response positions only.

    Args:
        model: A `transformers` causal LM.
        prompts: Prompt ids x of each sequence, not empty.
        responses: Response ids y of each sequence, end-of-sequence included, not empty.
        width_multiple: Sequences are padded to a multiple of so many tokens.

    Returns:
        Float32 [sequences, longest response], 0 beyond each response's end, with gradients where enabled.
    """
    # The last token of a response predicts nothing: it is no input.
    inputs = [[*x, *y[:-1]] for x, y in zip(prompts, responses, strict=True)]
    ids = _padded(inputs, multiple=width_multiple)
    at = [len(x) - 1 + np.arange(len(y)) for x, y in zip(prompts, responses, strict=True)]
    # Right padding needs no mask: a causal model never looks at what comes later, and without one attention is faster.
    return _scored(model, np.arange(len(inputs)), at, responses, ids, {})


def packed_log_probs(
    model: Any, prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]], *, width_multiple: int = 1
) -> Tensor:
    """What `response_log_probs` gives, every prompt computed once for all its responses.

    A row is `[x, y_1, ..., y_m]`: a block mask hides the responses from each other, positions of each continue from the
    prompt's length, and the first logit of each is that of the prompt's last token. Models whose attention cannot be masked so
    are found by `probe_paths`.

    Args:
        model: A `transformers` causal LM.
        prompts: Prompt ids of each row, not empty.
        responses: The responses of each row, at least one, end-of-sequence included, none empty.
        width_multiple: Rows are padded to a multiple of so many tokens.

    Returns:
        Float32 [responses in all, longest response], row by row, 0 beyond each response's end.
    """
    inputs, segments, positions, at, rows = [], [], [], [], []
    for row, (x, ys) in enumerate(zip(prompts, responses, strict=True)):
        lengths = [len(y) - 1 for y in ys]
        starts = len(x) + np.cumsum([0, *lengths])
        inputs.append([*x, *(i for y in ys for i in y[:-1])])
        segments.append(np.repeat(np.arange(len(ys) + 1), [len(x), *lengths]))
        positions.append(np.concatenate([np.arange(len(x)), *(len(x) + np.arange(n) for n in lengths)]))
        for start, n in zip(starts, lengths, strict=False):
            at.append(np.concatenate([[len(x) - 1], start + np.arange(n)]))
            rows.append(row)
    device = next(model.parameters()).device
    mask = block_mask(model, on_device(_padded(segments, fill=-1, multiple=width_multiple), device))
    padded = [_padded(x, multiple=width_multiple) for x in (positions, inputs)]
    packed = {"position_ids": on_device(padded[0], device), "attention_mask": mask}
    return _scored(model, np.array(rows), at, [y for ys in responses for y in ys], padded[1], packed)


def block_mask(model: Any, segments: Tensor) -> Any:
    """The attention mask of packed rows, in the form that the model's attention takes.

    Args:
        model: A `transformers` causal LM.
        segments: [rows, tokens]: 0 for the prompt, the number of the response, -1 for padding.

    Returns:
        [rows, 1, tokens, tokens]: true (or 0 where it is added) where a token attends: backwards to the prompt and to its own
        response. Padding attends to itself, so that no row of the softmax is empty.
    """
    implementation = model.config._attn_implementation
    if implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        def attends(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            own = (segments[row, key] == 0) | (segments[row, key] == segments[row, query])
            return own & (key <= query)

        n, width = segments.shape
        return create_block_mask(attends, n, None, width, width, device=str(segments.device))
    causal = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device).tril()
    key, query = segments[:, None, None, :], segments[:, None, :, None]
    allowed = ((key == 0) | (key == query)) & causal
    if implementation == "sdpa":
        return allowed
    kind = segments.device.type
    rounded = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if rounded else model.dtype
    return torch.zeros(allowed.shape, dtype=dtype, device=segments.device).masked_fill(~allowed, torch.finfo(dtype).min)


@contextmanager
def head_at(model: Any, rows: Tensor, positions: Tensor) -> Iterator[None]:
    """Within it, the model's logits are those of (rows, positions) only, [n, vocabulary].

    The LM head gets the chosen hidden states alone; whatever the model does to its logits afterwards (scaling, soft caps)
    still happens.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ValueError(f"{type(model).__name__} has no LM head that can be found: it cannot be trained or sampled from")
    handle = head.register_forward_pre_hook(lambda module, args: (args[0][rows, positions],))
    try:
        yield
    finally:
        handle.remove()


def _scored(
    model: Any, rows: np.ndarray, at: Sequence[np.ndarray], responses: Sequence[Ids], ids: np.ndarray, masking: dict[str, Any]
) -> Tensor:
    """Log-probability of every response token, its logit read at (its row, its place in `at`)."""
    device = next(model.parameters()).device
    lengths = np.array([len(y) for y in responses])
    token = on_device(np.concatenate([np.asarray(y, np.int64) for y in responses]), device)
    row = on_device(np.repeat(rows, lengths), device)
    place = on_device(np.concatenate(at), device)
    with head_at(model, row, place):
        logits = model(input_ids=on_device(ids, device), use_cache=False, **masking).logits
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    picked = torch.nn.functional.cross_entropy(logits.to(dtype), token, reduction="none")
    used = on_device(np.arange(lengths.max()) < lengths[:, None], device)
    return torch.zeros(used.shape, dtype=dtype, device=device).masked_scatter(used, -picked)


def _padded(rows: Sequence[Any], *, fill: int = 0, multiple: int = 1) -> np.ndarray:
    width = max(map(len, rows))
    out = np.full((len(rows), width + -width % multiple), fill, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on the device; on a GPU it arrives when what was told before is done, and nothing waits for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def fast_precision(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where the processor multiplies in it; weights and their updates stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the processor has instructions for bfloat16 products."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def length_buckets(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group sequences of similar length so that each group's padded size stays within `budget` tokens.

    Args:
        lengths: Tokens of each sequence.
        budget: Tokens of a padded group at most (a longer single sequence is a group of its own).
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if groups and (len(groups[-1]) + 1) * lengths[i] <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
