"""Incremental decoding of many continuations of each prompt, the prompt computed and kept once.

A *row* is a distinct continuation. Where the model allows it, rows attend to their prompt's keys and values where they lie and
to their own few tokens beside them: the prompt's are never copied, and a row costs its own tokens only.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import AttentionInterface, Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from corewrite.rewriter.log_probs import head_at

IntArray = npt.NDArray[np.int64]

_NAME = "corewrite_shared_prefix"
_TOKENS = 16_384
_ACTIVE: ContextVar["SharedPrefixDecoder"] = ContextVar(_NAME)


@lru_cache
def _cache_argument(forward: Callable[..., Any]) -> str:
    """Name of the argument, which transformers renames model by model; asked for once, not at every token."""
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"


class Decoder(Protocol):
    """Continues prompts token by token."""

    logits: Tensor
    """[prompts, vocabulary]: of the token after each prompt and what is `written` of it."""
    written: "list[Completion]"
    """Beginnings that need not be decoded any more, of each prompt."""

    def advance(self, parents: Tensor, tokens: Tensor, prompts: Tensor) -> Tensor:
        """Grow rows by one token.

        Args:
            parents: [rows] the row of the last call that each continues (of the first call: the prompt).
            tokens: [rows] its next token.
            prompts: [rows] its prompt, not decreasing.

        Returns:
            [rows, vocabulary] logits of the token after.
        """
        ...


@dataclass(frozen=True)
class Completion:
    """Generated token ids.

    Attributes:
        token_ids: The very ids generated, end-of-sequence included where reached: never re-tokenised.
        log_probs: Untempered, unfiltered log-probability of each, nats.
    """

    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...]


class SharedPrefixDecoder:
    """A decoder for models whose attention goes through `transformers`' attention interface (see `probe_paths`)."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]] | None = None) -> None:
        """Compute the prompts, and behind each its draft: as much of it stays as greedy decoding would have written itself.

        Args:
            model: A causal LM.
            prompts: Token ids.
            drafts: A guess of each prompt's greedy continuation, without an end. What is right of it costs no step of its own,
                and what is wrong changes nothing (speculative decoding, arXiv 2211.17192, at temperature 0); None: no guesses.
        """
        AttentionInterface.register(_NAME, _attend)
        self._model = model
        self._device = next(model.parameters()).device
        drafts = drafts or [()] * len(prompts)
        lengths, drafted = (np.array([len(x) for x in rows]) for rows in (prompts, drafts))
        ids = np.zeros((len(prompts), int((lengths + drafted).max())), np.int64)
        for i, (prompt, draft) in enumerate(zip(prompts, drafts, strict=True)):
            ids[i, : len(prompt) + len(draft)] = [*prompt, *draft]
        cache = DynamicCache()
        # Logits of each prompt's last token, then of every token of its draft.
        row = np.repeat(np.arange(len(prompts)), drafted + 1)
        first = np.cumsum(drafted + 1) - drafted - 1
        place = np.arange(len(row)) - first[row]
        at = [torch.from_numpy(x).to(self._device) for x in (row, lengths[row] - 1 + place)]
        # Right padding, no mask: a causal model never looks at what comes later.
        with head_at(model, *at):
            logits = self._forward(cache, input_ids=torch.from_numpy(ids).to(self._device))
        self.written = _agreed(logits, first, drafts)
        accepted = np.array([len(done.token_ids) for done in self.written])
        self.logits = logits if not drafted.any() else logits[torch.from_numpy(first + accepted).to(self._device)]
        self._lengths = torch.from_numpy(lengths + accepted).to(self._device)
        self.prefix = [(layer.keys, layer.values) for layer in cache.layers]
        padding = torch.arange(ids.shape[1], device=self._device) >= self._lengths[:, None]  # and what was guessed wrong
        self.padding = padding[:, None, None, :] if bool(padding.any()) else None
        self._suffix = Cache(layers=[DynamicLayer() for _ in self.prefix])
        self._depth = 0

    def advance(self, parents: Tensor, tokens: Tensor, prompts: Tensor) -> Tensor:
        """See `Decoder.advance`."""
        if self._depth:
            self._suffix.batch_select_indices(parents)
        self._group(prompts)
        positions = self._lengths[prompts] + self._depth
        self._depth += 1
        row = torch.arange(len(tokens), device=self._device)
        config, before = self._model.config, self._model.config._attn_implementation
        token = _ACTIVE.set(self)
        # `transformers` looks the attention up by this name at every call.
        config._attn_implementation = _NAME
        try:
            with head_at(self._model, row, torch.zeros_like(row)):
                return self._forward(self._suffix, input_ids=tokens[:, None], position_ids=positions[:, None])
        finally:
            config._attn_implementation = before
            _ACTIVE.reset(token)

    def _forward(self, cache: Cache, **inputs: Tensor) -> Tensor:
        bare = self._model.get_base_model() if hasattr(self._model, "get_base_model") else self._model  # of an adapter
        return self._model(**inputs, **{_cache_argument(type(bare).forward): cache}, use_cache=True).logits  # type: ignore[no-any-return]

    def _group(self, prompts: Tensor) -> None:
        """Where each row stands in a padded [prompts, most rows of a prompt] layout."""
        counts = torch.bincount(prompts, minlength=len(self._lengths))
        self.width = int(counts.max())
        first = counts.cumsum(0) - counts
        self.place = prompts * self.width + torch.arange(len(prompts), device=self._device) - first[prompts]
        self.dense = self.width * len(counts) == len(prompts)


def _agreed(logits: Tensor, first: IntArray, drafts: Sequence[Sequence[int]]) -> list[Completion]:
    """Of each draft the tokens up to the first that is not the most probable; its logits begin at row `first`."""
    if not any(drafts):
        return [Completion((), ())] * len(drafts)
    log_probs = logits.float().log_softmax(-1)
    best = log_probs.argmax(-1).tolist()
    found = []
    for start, draft in zip(first.tolist(), drafts, strict=True):
        right = [best[start + k] == token for k, token in enumerate(draft)]
        n = right.index(False) if False in right else len(draft)
        values = [float(log_probs[start + k, token]) for k, token in enumerate(draft[:n])]
        found.append(Completion(tuple(draft[:n]), tuple(values)))
    return found


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over prefix and suffix apart, put together by their softmax masses; all in float32 but the products.

    Args:
        module: The attention layer.
        query: [rows, heads, 1, size].
        key, value: [rows, key heads, tokens of the suffix, size].
        attention_mask: Not used: a row's whole suffix is its past.
        scaling: Of the scores.

    Returns:
        [rows, 1, heads, size], and no weights.
    """
    decoder = _ACTIVE.get()
    keys, values = decoder.prefix[module.layer_idx]
    rows, heads, _one, size = query.shape
    shared = key.shape[1]
    group = heads // shared
    scale = size**-0.5 if scaling is None else scaling
    own = query.view(rows, shared, group, size)

    # Prefix: rows of a prompt (and heads of a group) side by side, so that its keys are read once.
    if decoder.dense:
        padded = own
    else:
        padded = own.new_zeros(len(keys) * decoder.width, shared, group, size)
        padded[decoder.place] = own
    stacked = padded.view(len(keys), decoder.width, shared, group, size).permute(0, 2, 1, 3, 4).flatten(2, 3)
    scores = _scores(stacked, keys, scale, softcap)
    if decoder.padding is not None:
        scores = scores.masked_fill(decoder.padding, -torch.inf)
    top = scores.amax(-1, keepdim=True)
    weights = (scores - top).exp()
    parts = (weights.to(values.dtype) @ values, top, weights.sum(-1, keepdim=True))
    prefix, prefix_top, prefix_mass = (
        part.unflatten(2, (decoder.width, group)).permute(0, 2, 1, 3, 4).flatten(0, 1)[decoder.place].to(scores.dtype)
        for part in parts
    )

    # Suffix: a few tokens of each row's own.
    scores = _scores(own, key, scale, softcap)
    top = torch.maximum(scores.amax(-1, keepdim=True), prefix_top)
    weights = (scores - top).exp()
    rest = (prefix_top - top).exp()
    mass = weights.sum(-1, keepdim=True) + rest * prefix_mass
    out = ((weights.to(value.dtype) @ value).to(scores.dtype) + rest * prefix) / mass
    return out.to(query.dtype).reshape(rows, 1, heads, size), None


def _scores(query: Tensor, keys: Tensor, scale: float, softcap: float | None) -> Tensor:
    """Scores in float32 at least; capped softly where the model does so (Gemma 2)."""
    product = query @ keys.transpose(2, 3)
    scores = product.to(torch.promote_types(product.dtype, torch.float32)) * scale
    return scores if softcap is None else softcap * (scores / softcap).tanh()


class RecomputingDecoder:
    """A decoder for any causal model: every row's whole sequence at every token. Right, and slow."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        """Compute the prompts."""
        self._model = model
        self._sequences = [list(p) for p in prompts]
        self.written = [Completion((), ())] * len(prompts)
        self.logits = self._last_logits()

    def advance(self, parents: Tensor, tokens: Tensor, prompts: Tensor) -> Tensor:
        """See `Decoder.advance`."""
        self._sequences = [
            [*self._sequences[parent], token] for parent, token in zip(parents.tolist(), tokens.tolist(), strict=True)
        ]
        return self._last_logits()

    def _last_logits(self) -> Tensor:
        longest = max(map(len, self._sequences))
        rows = max(1, _TOKENS // longest)
        parts = [self._logits(self._sequences[i : i + rows]) for i in range(0, len(self._sequences), rows)]
        return torch.cat(parts)

    def _logits(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        device = next(self._model.parameters()).device
        lengths = torch.tensor([len(s) for s in sequences], device=device)
        ids = torch.zeros((len(lengths), int(lengths.max())), dtype=torch.long)
        for i, sequence in enumerate(sequences):
            ids[i, : len(sequence)] = torch.tensor(sequence)
        with head_at(self._model, torch.arange(len(lengths), device=device), lengths - 1):
            return self._model(input_ids=ids.to(device), use_cache=False).logits  # type: ignore[no-any-return]
