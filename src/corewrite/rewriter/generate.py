"""Sample and decode rewrites in batches: one prefill per prompt, shared by its samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache

from corewrite.domain import Query, keyed_uniform
from corewrite.rewriter.artifact import Rewriter
from corewrite.rewriter.clean import clean
from corewrite.rewriter.log_probs import length_buckets

IntArray = npt.NDArray[np.int64]
_PREFILL_TOKENS = 16_384
_ROWS = 2_048
MAX_NEW_TOKENS = 14


@dataclass(frozen=True)
class Rewrite:
    """One generated rewrite.

    Attributes:
        text: Cleaned text; empty: no rewrite.
        malformed: Whether cleaning had to change it.
        token_ids: The very ids generated, end-of-sequence included where reached: never re-tokenised.
        ended: Whether the end-of-sequence token was reached.
        log_prob: Sum of untempered log-probabilities of `token_ids`.
    """

    text: str
    malformed: bool
    token_ids: tuple[int, ...]
    ended: bool
    log_prob: float


def greedy(
    rewriter: Rewriter,
    queries: Sequence[Query],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Rewrite]:
    """The most probable token at every step; equal queries are decoded once.

    Args:
        rewriter: The policy.
        queries: What to rewrite.
        max_new_tokens: Length limit in tokens.
        progress: Called with (distinct queries done, of how many).
    """
    distinct = {q.key: q for q in queries}
    keys = list(distinct)
    found = _generate(rewriter, [distinct[k] for k in keys], 1, max_new_tokens, None, progress)
    by_key = {key: rows[0] for key, rows in zip(keys, found, strict=True)}
    return [by_key[q.key] for q in queries]


def sample(
    rewriter: Rewriter,
    queries: Sequence[Query],
    n: int,
    *,
    keys: Sequence[int],
    seed: int,
    phase: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[Rewrite]]:
    """`n` samples of every query at temperature 1.

    Every draw is keyed by (seed, phase, key of the query, sample, position): the batch a query falls into changes nothing but
    rounding.

    Args:
        rewriter: The policy.
        queries: What to rewrite.
        n: Samples of each.
        keys: An integer key of each query.
        seed, phase: The other keys.
        max_new_tokens: Length limit in tokens.
        progress: Called with (queries done, of how many).
    """

    def draw(query: IntArray, row: IntArray, position: int) -> npt.NDArray[np.float64]:
        key = np.array([keys[i] for i in query], np.uint64)
        return keyed_uniform(seed, phase, key, row, position)

    return _generate(rewriter, queries, n, max_new_tokens, draw, progress)


Draw = Callable[[IntArray, IntArray, int], npt.NDArray[np.float64]]


@torch.inference_mode()
def _generate(
    rewriter: Rewriter, queries: Sequence[Query], n: int, limit: int, draw: Draw | None, progress: Callable[[int, int], None]
) -> list[list[Rewrite]]:
    rewriter.model.eval()
    prompts = [rewriter.template.encode(q) for q in queries]
    out: list[list[Rewrite]] = [[] for _ in queries]
    done = 0
    for group in length_buckets([len(p) for p in prompts], _PREFILL_TOKENS):
        step = max(1, _ROWS // n)
        for start in range(0, len(group), step):
            part = group[start : start + step]
            tokens, log_probs = _decode(rewriter, [prompts[i] for i in part], np.array(part), n, limit, draw)
            for k, i in enumerate(part):
                out[i] = [_finish(rewriter, tokens[k * n + s], log_probs[k * n + s]) for s in range(n)]
            done += len(part)
            progress(done, len(queries))
    return out


def _decode(
    rewriter: Rewriter, prompts: Sequence[Sequence[int]], which: IntArray, n: int, limit: int, draw: Draw | None
) -> tuple[list[list[int]], list[float]]:
    """Token ids and log-probabilities of `n` continuations of each prompt, prompt by prompt."""
    model, tokenizer = rewriter.model, rewriter.tokenizer
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):  # left padding: every row's next token stands in the same column
        ids[i, width - len(prompt) :] = torch.tensor(list(prompt))
        mask[i, width - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache()
    first = model(
        input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True, logits_to_keep=1
    )
    logits = first.logits[:, -1].float().repeat_interleave(n, 0)
    cache = first.past_key_values
    if n > 1:
        cache.batch_repeat_interleave(n)
        mask = mask.repeat_interleave(n, 0)
    last = position[:, -1].repeat_interleave(n)
    rows = np.arange(len(prompts) * n)
    tokens: list[list[int]] = [[] for _ in rows]
    total = np.zeros(len(rows))
    for step in range(limit):
        log_probs = torch.log_softmax(logits, -1)
        chosen = _choose(log_probs, which[rows // n], rows % n, step, draw)
        picked = log_probs.gather(1, chosen[:, None])[:, 0].double().cpu().numpy()
        total[rows] += picked
        for row, token in zip(rows, chosen.tolist(), strict=True):
            tokens[row].append(token)
        alive = chosen != tokenizer.eos_token_id
        if step + 1 == limit or not bool(alive.any()):
            break
        if not bool(alive.all()):  # finished rows leave the batch
            kept = torch.nonzero(alive)[:, 0]
            cache.batch_select_indices(kept)
            chosen, mask, last = chosen[kept], mask[kept], last[kept]
            rows = rows[kept.cpu().numpy()]
        last = last + 1
        mask = torch.cat([mask, mask.new_ones((len(mask), 1))], 1)
        logits = model(
            input_ids=chosen[:, None], attention_mask=mask, position_ids=last[:, None], past_key_values=cache, use_cache=True
        ).logits[:, -1].float()  # fmt: skip
    return tokens, total.tolist()


def _choose(log_probs: Tensor, query: IntArray, row: IntArray, step: int, draw: Draw | None) -> Tensor:
    if draw is None:
        return log_probs.argmax(-1)
    u = torch.from_numpy(np.atleast_1d(draw(query, row, step))).to(log_probs.device)
    mass = log_probs.exp().double().cumsum(-1)
    # Inverse CDF; the last column is short of 1 by rounding only.
    return torch.searchsorted(mass, (u * mass[:, -1])[:, None]).clamp(max=log_probs.shape[1] - 1)[:, 0]


def _finish(rewriter: Rewriter, ids: list[int], log_prob: float) -> Rewrite:
    ended = bool(ids) and ids[-1] == rewriter.tokenizer.eos_token_id
    cleaned = clean(rewriter.template.decode(ids))
    return Rewrite(cleaned.text, cleaned.malformed, tuple(ids), ended, log_prob)
