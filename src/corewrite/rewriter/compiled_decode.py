"""The shared-prefix decoder with compiled layers: for a GPU, where starting kernels and copying between them take the time.

A prompt's layer and a decode step's layer are one graph each. Keys and values of a row's own tokens lie in room for all of
them from the start, so that the graph of a step is the same at every depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface

from corewrite.rewriter.compiled_layers import compiled_forward, compiling, layers_of, num_graphs
from corewrite.rewriter.decode import Completion
from corewrite.rewriter.log_probs import head_at, on_device

_NAME = "corewrite_compiled_prefix"
_WIDTH = 16
"""Prompts are padded to a multiple of so many tokens: products with an odd side run at a third of the speed."""
_LANES = 4
"""And the rows of a prompt to a multiple of so many."""
_GRAPHS = 8
"""Graphs of either kind that a model makes at most; a further one is an error, not a silent way back to plain execution."""


@dataclass(eq=False)
class _Kept:
    """A layer's keys and values: [prompts, key heads, tokens, size] of the prompts, [rows, key heads, room, size] of rows."""

    keys: Tensor
    values: Tensor
    own_keys: Tensor
    own_values: Tensor


@dataclass(eq=False)
class _Rows:
    """How the rows of a step lie.

    Attributes:
        parents: [rows] the row of the step before that each continues.
        lanes: [prompts, most rows of a prompt] its rows, any one where there are fewer.
        place: [rows] where each stands in `lanes`.
        depth: [] tokens that a row has before this step.
        padding: [prompts, 1, 1, tokens] true where a prompt has no token.
    """

    parents: Tensor
    lanes: Tensor
    place: Tensor
    depth: Tensor
    padding: Tensor


class CompiledModel:
    """A model whose layers are compiled for decoding; it is used for nothing else any more."""

    def __init__(self, model: Any) -> None:
        """Compile the layers of `model`, in place; its weights may be changed afterwards."""
        AttentionInterface.register(_NAME, _attend)
        self.model = model
        self.device = next(model.parameters()).device
        self.kept: list[_Kept] = []
        self.rows: _Rows | None = None
        self._graphs = 0
        model.config._attn_implementation = _NAME
        for layer in layers_of(model):
            self.kept.append(_Kept(*[torch.empty(0, device=self.device)] * 4))
            forwards = compiled_forward(layer, "prompts"), compiled_forward(layer, "steps")
            # Graphs of models before, in this process, are shared and do not count.
            self._graphs = max(self._graphs, _GRAPHS + max(map(num_graphs, forwards)))
            layer.forward = partial(self._forward, *forwards, layer, self.kept[-1])

    def forget(self) -> None:
        """Let go of all keys and values."""
        for kept in self.kept:
            kept.keys = kept.values = kept.own_keys = kept.own_values = torch.empty(0, device=self.device)

    def _forward(self, prompts: Any, steps: Any, layer: Any, kept: _Kept, *args: Any, **options: Any) -> Any:
        if self.rows is None:
            return prompts(layer, *args, kept=kept, rows=None, **options)
        return steps(layer, *args, kept=kept, rows=self.rows, **options)

    def logits(self, ids: Tensor, positions: Tensor, at: tuple[Tensor, Tensor], rows: _Rows | None) -> Tensor:
        """Logits at (rows, positions) `at`; without `rows` of whole prompts, with it of one more token of each row."""
        self.rows = rows
        with compiling(self._graphs), head_at(self.model, *at):
            return self.model(input_ids=ids, position_ids=positions, use_cache=False).logits  # type: ignore[no-any-return]


class CompiledDecoder:
    """`SharedPrefixDecoder` on a `CompiledModel`; equal to it up to rounding. One at a time uses a model."""

    def __init__(self, compiled: CompiledModel, prompts: Sequence[Sequence[int]], limit: int) -> None:
        """Compute the prompts.

        Args:
            compiled: The model.
            prompts: Token ids.
            limit: Calls of `advance` at most.
        """
        compiled.forget()
        self._compiled, self._limit = compiled, limit
        self._device = compiled.device
        lengths = np.array([len(x) for x in prompts])
        ids = np.zeros((len(prompts), -(-int(lengths.max()) // _WIDTH) * _WIDTH), np.int64)
        for i, prompt in enumerate(prompts):
            ids[i, : len(prompt)] = prompt
        self._lengths = on_device(lengths, self._device)
        columns = torch.arange(ids.shape[1], device=self._device)
        self._padding = (columns >= self._lengths[:, None])[:, None, None, :]
        at = torch.arange(len(prompts), device=self._device), self._lengths - 1
        self.written = [Completion((), ())] * len(prompts)
        # Right padding, no mask: a causal model never looks at what comes later.
        self.logits = compiled.logits(on_device(ids, self._device), columns.expand(len(prompts), -1), at, None)
        self._depth = 0

    def advance(self, parents: Tensor, tokens: Tensor, prompts: Tensor) -> Tensor:
        """See `Decoder.advance`."""
        if not self._depth:
            for kept in self._compiled.kept:
                prefix = kept.keys
                room = prefix.new_zeros(len(self._lengths), prefix.shape[1], self._limit, prefix.shape[3])
                kept.own_keys = kept.own_values = room  # never written to: every step makes its own
        rows = torch.arange(len(tokens), device=self._device)
        counts = torch.bincount(prompts, minlength=len(self._lengths))
        width = -(-int(counts.max()) // _LANES) * _LANES
        place = prompts * width + rows - (counts.cumsum(0) - counts)[prompts]
        lanes = torch.zeros(len(counts) * width, dtype=torch.long, device=self._device).index_copy(0, place, rows)
        depth = torch.full((), self._depth, device=self._device)  # does not wait, as a number's copy does
        layout = _Rows(parents, lanes.view(len(counts), width), place, depth, self._padding)
        positions = self._lengths[prompts] + self._depth
        self._depth += 1
        return self._compiled.logits(tokens[:, None], positions[:, None], (rows, torch.zeros_like(rows)), layout)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    kept: _Kept,
    rows: _Rows | None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer: within the prompts, or of a step's rows over their prompt and their own tokens.

    Args:
        module: The attention layer.
        query: [rows, heads, tokens, size].
        key, value: [rows, key heads, tokens, size].
        attention_mask: Not used.
        scaling: Of the scores.
        kept: The layer's keys and values, which are added to.
        rows: None: whole prompts.

    Returns:
        [rows, tokens, heads, size], and no weights.
    """
    n, heads, _one, size = query.shape
    shared = key.shape[1]
    group = heads // shared
    scale = size**-0.5 if scaling is None else scaling
    if rows is None:
        kept.keys, kept.values = key.contiguous(), value.contiguous()
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=group > 1
        )
        return out.transpose(1, 2), None

    # The prompt's tokens: rows of a prompt (and heads of a group) side by side, so that its keys are read once.
    own = query.view(n, shared, group, size)
    lanes, width = rows.lanes, rows.lanes.shape[1]
    stacked = own[lanes.flatten()].view(-1, width, shared, group, size).permute(0, 2, 1, 3, 4).flatten(2, 3)
    scores = (stacked @ kept.keys.transpose(2, 3)).float() * scale
    scores = scores.masked_fill(rows.padding, -torch.inf)
    prefix_top = scores.amax(-1, keepdim=True)
    weights = (scores - prefix_top).exp()
    prefix = weights.to(value.dtype) @ kept.values
    prefix, prefix_top, prefix_mass = (
        part.reshape(len(lanes), shared, width, group, -1).permute(0, 2, 1, 3, 4).flatten(0, 1)[rows.place].float()
        for part in (prefix, prefix_top, weights.sum(-1, keepdim=True))
    )

    # The row's own tokens, of which there are `depth` and this one.
    columns = torch.arange(kept.own_keys.shape[2], device=query.device)
    here = (columns == rows.depth)[:, None]
    keys = torch.where(here, key, kept.own_keys[rows.parents])
    values = torch.where(here, value, kept.own_values[rows.parents])
    kept.own_keys, kept.own_values = keys, values
    # A few tokens: products too small for a matrix multiplication, which would want copies of its own.
    scores = (own.float()[:, :, :, None] * keys.float()[:, :, None]).sum(-1) * scale
    scores = scores.masked_fill(columns > rows.depth, -torch.inf)
    top = torch.maximum(scores.amax(-1, keepdim=True), prefix_top)
    weights = (scores - top).exp()
    rest = (prefix_top - top).exp()
    mass = weights.sum(-1, keepdim=True) + rest * prefix_mass
    out = ((weights[..., None] * values.float()[:, :, None]).sum(3) + rest * prefix) / mass
    return out.to(query.dtype).reshape(n, 1, heads, size), None
