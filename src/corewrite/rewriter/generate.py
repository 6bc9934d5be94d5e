"""Sample and decode rewrites in batches: one prefill per prompt, equal beginnings advanced once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corewrite.domain import Query, keyed_uniform
from corewrite.rewriter.artifact import Rewriter
from corewrite.rewriter.clean import clean
from corewrite.rewriter.compiled_decode import CompiledDecoder, CompiledModel
from corewrite.rewriter.decode import Completion, Decoder, RecomputingDecoder, SharedPrefixDecoder
from corewrite.rewriter.log_probs import length_buckets

IntArray = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
_PREFILL_TOKENS = {"cpu": 16_384, "cuda": 65_536}
"""Tokens of the prompts that are computed together: a GPU's time goes into starting kernels until they are large."""
_ROWS = {"cpu": 4_096, "cuda": 8_192}
_BLOCK = 64
_GUESSED = 32
"""Prompts at most whose greedy continuations are guessed: with more, a step is bound by arithmetic, which guesses do not save,
and the logits of guesses take memory."""
MAX_NEW_TOKENS = 14


@dataclass(frozen=True)
class Rewrite:
    """One generated rewrite.

    Attributes:
        text: Cleaned text; empty: no rewrite.
        malformed: Whether cleaning had to change it.
        token_ids: The very ids generated, the token that ends it included where reached: never re-tokenised.
        ended: Whether the token that ends it was reached.
        log_prob: Sum of untempered log-probabilities of `token_ids`.
    """

    text: str
    malformed: bool
    token_ids: tuple[int, ...]
    ended: bool
    log_prob: float


def as_rewrite(rewriter: Rewriter, completion: Completion) -> Rewrite:
    """A completion as text, cleaned as it would be served."""
    ids = completion.token_ids
    cleaned = clean(rewriter.template.decode(ids))
    ended = bool(ids) and ids[-1] == rewriter.template.end_id
    # Reserved tokens leave no trace in the text: learnt from, they would be praised for what the text did.
    malformed = cleaned.malformed or rewriter.template.holds_reserved(ids[: len(ids) - ended])
    return Rewrite(cleaned.text, malformed, ids, ended, sum(completion.log_probs))


def greedy(
    rewriter: Rewriter,
    queries: Sequence[Query],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Progress = lambda done, total: None,
) -> list[Rewrite]:
    """The most probable token at every step; equal prompts are decoded once.

    A few prompts at a time, as a server has them, are decoded by guess: many rewrites are the query, or begin with it.

    Args:
        rewriter: The policy.
        queries: What to rewrite.
        max_new_tokens: Length limit in tokens.
        progress: Called with (distinct prompts done, of how many).
    """
    prompts, place = distinct_prompts(rewriter, queries)
    drafts = None
    if len(prompts) <= _GUESSED:
        own = dict(zip(place, queries, strict=True))  # equal prompts are of equal texts
        drafts = [rewriter.template.encode_rewrite(own[i].text)[: max_new_tokens - 1] for i in range(len(prompts))]
    found = _generate(rewriter, prompts, 1, max_new_tokens, _most_probable, progress, drafts)
    rewrites = [as_rewrite(rewriter, row[0]) for row in found]
    return [rewrites[i] for i in place]


def beam(
    rewriter: Rewriter,
    queries: Sequence[Query],
    width: int,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Progress = lambda done, total: None,
) -> list[list[Rewrite]]:
    """The `width` best rewrites that a beam of that width finds, by summed log-probability, best first.

    A finished rewrite keeps its place in the beam until better ones push it out. No length penalty: the score is the
    probability of the rewrite.

    Args:
        rewriter: The policy.
        queries: What to rewrite; equal prompts are decoded once.
        width: Rewrites kept at every step, at least 1.
        max_new_tokens: Length limit in tokens.
        progress: Called with (distinct prompts done, of how many).
    """
    if width < 1:
        raise ValueError(f"a beam needs a width of at least 1, not {width}")
    prompts, place = distinct_prompts(rewriter, queries)
    rewrites: list[list[Rewrite]] = [[] for _ in prompts]
    done = 0
    for part in _groups(prompts, width, next(rewriter.model.parameters()).device):
        found = _search(rewriter, [prompts[i] for i in part], width, max_new_tokens)
        for i, row in zip(part, found, strict=True):
            rewrites[i] = [as_rewrite(rewriter, c) for c in row]
        done += len(part)
        progress(done, len(prompts))
    return [rewrites[i] for i in place]


def sample(
    rewriter: Rewriter,
    prompts: Sequence[Sequence[int]],
    n: int,
    *,
    keys: Sequence[int],
    seed: int,
    phase: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Progress = lambda done, total: None,
    ready: Callable[[Sequence[int], Sequence[list[Completion]]], None] = lambda which, found: None,
    compiled: CompiledModel | None = None,
) -> list[list[Completion]]:
    """`n` samples of every prompt at temperature 1.

    Every draw is keyed by (seed, phase, key of the prompt, sample, position): the batch a prompt falls into changes nothing but
    rounding, and samples that have drawn the same tokens so far are advanced as one row.

    Args:
        rewriter: The policy.
        prompts: Prompt ids.
        n: Samples of each.
        keys: An integer key of each prompt.
        seed, phase: The other keys.
        max_new_tokens: Length limit in tokens.
        progress: Called with (prompts done, of how many).
        ready: Called with the numbers of the prompts that are finished, and their samples.
        compiled: The rewriter's model with compiled layers; the samples are the same but for rounding.
    """
    key = np.array([k & (2**64 - 1) for k in keys], np.uint64)

    def choose(log_probs: Tensor, row: Tensor, prompt: IntArray, number: IntArray, position: int) -> Tensor:
        return _inverse_cdf(log_probs, row, keyed_uniform(seed, phase, key[prompt], number, position))

    return _generate(rewriter, prompts, n, max_new_tokens, choose, progress, ready=ready, compiled=compiled)


def distinct_prompts(rewriter: Rewriter, queries: Sequence[Query]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Prompts of the queries, equal ones once, and each query's place among them."""
    place: dict[tuple[int, ...], int] = {}
    where = [place.setdefault(tuple(rewriter.template.encode(q)), len(place)) for q in queries]
    return list(place), where


Choose = Callable[[Tensor, Tensor, IntArray, IntArray, int], Tensor]
"""From [rows, vocabulary] log-probabilities, the row of each sample, its prompt, number and position: its next token."""


def _most_probable(log_probs: Tensor, row: Tensor, prompt: IntArray, number: IntArray, position: int) -> Tensor:
    return log_probs.argmax(-1)[row]


def _inverse_cdf(log_probs: Tensor, row: Tensor, u: npt.NDArray[np.float64]) -> Tensor:
    """The token whose share of [0, 1) holds `u`: first the block of tokens, then the token in it."""
    size = log_probs.shape[1]
    probability = log_probs.exp()
    if size % _BLOCK:
        probability = torch.nn.functional.pad(probability, (0, -size % _BLOCK))
    probability = probability.view(len(log_probs), -1, _BLOCK)
    mass = probability.sum(2).double().cumsum(1)[row]
    target = torch.from_numpy(np.atleast_1d(u)).to(log_probs.device)[:, None] * mass[:, -1:]
    block = torch.searchsorted(mass, target, right=True).clamp(max=mass.shape[1] - 1)
    before = torch.where(block > 0, mass.gather(1, (block - 1).clamp(min=0)), 0.0)
    within = probability[row, block[:, 0]].double().cumsum(1)
    # Sums of blocks and of tokens round apart: never past the block's last token.
    inner = torch.searchsorted(
        within, torch.minimum(target - before, within[:, -1:].nextafter(torch.zeros_like(within[:, -1:]))), right=True
    )
    return (block * _BLOCK + inner)[:, 0].clamp(max=size - 1)


def _groups(prompts: Sequence[Sequence[int]], n: int, device: torch.device) -> list[list[int]]:
    """Prompts of similar length, within the memory of a prefill and of `n` rows each."""
    kind = device.type if device.type in _ROWS else "cpu"
    step, tokens = max(1, _ROWS[kind] // n), _PREFILL_TOKENS[kind]
    return [
        bucket[start : start + step]
        for bucket in length_buckets([len(p) for p in prompts], tokens)
        for start in range(0, len(bucket), step)
    ]


@torch.inference_mode()
def _generate(
    rewriter: Rewriter,
    prompts: Sequence[Sequence[int]],
    n: int,
    limit: int,
    choose: Choose,
    progress: Progress,
    drafts: Sequence[Sequence[int]] | None = None,
    ready: Callable[[Sequence[int], Sequence[list[Completion]]], None] = lambda which, found: None,
    compiled: CompiledModel | None = None,
) -> list[list[Completion]]:
    rewriter.model.eval()
    out: list[list[Completion]] = [[] for _ in prompts]
    done = 0
    for part in _groups(prompts, n, next(rewriter.model.parameters()).device):
        guesses = None if drafts is None else [drafts[i] for i in part]
        found = _continue(rewriter, [prompts[i] for i in part], np.array(part), n, limit, choose, guesses, compiled)
        for i, row in zip(part, found, strict=True):
            out[i] = row
        done += len(part)
        ready(part, found)
        progress(done, len(prompts))
    if compiled is not None:
        compiled.forget()
    return out


def _continue(
    rewriter: Rewriter,
    prompts: Sequence[Sequence[int]],
    which: IntArray,
    n: int,
    limit: int,
    choose: Choose,
    drafts: Sequence[Sequence[int]] | None = None,
    compiled: CompiledModel | None = None,
) -> list[list[Completion]]:
    """`n` continuations of each prompt; `which` are the prompts' numbers outside. Drafts are for one, the most probable."""
    decoder = CompiledDecoder(compiled, prompts, limit) if compiled else _decoder(rewriter, prompts, drafts)
    device = decoder.logits.device
    alive = np.arange(len(prompts) * n)
    row = torch.from_numpy(alive // n).to(device)  # of each alive sample, among the decoder's rows
    owner = torch.arange(len(prompts), device=device)  # prompt of each row
    tokens = np.full((len(alive), limit), -1, np.int64)
    scores = np.zeros((len(alive), limit))
    begun = np.zeros(len(alive), np.int64)
    for i, done in enumerate(decoder.written if drafts else ()):  # with drafts n is 1
        begun[i] = length = len(done.token_ids)
        tokens[i, :length], scores[i, :length] = done.token_ids, done.log_probs
    logits = decoder.logits
    for position in range(limit):
        log_probs = logits.float().log_softmax(-1)
        chosen = choose(log_probs, row, which[alive // n], alive % n, position)
        place = begun[alive] + position
        tokens[alive, place] = chosen.cpu().numpy()
        scores[alive, place] = log_probs[row, chosen].double().cpu().numpy()
        going = (chosen != rewriter.template.end_id) & torch.from_numpy(place + 1 < limit).to(device)
        if not bool(going.any()):
            break
        alive = alive[going.cpu().numpy()]  # finished samples leave
        grown, row = torch.unique(row[going] * log_probs.shape[1] + chosen[going], return_inverse=True)
        parents = grown // log_probs.shape[1]
        owner = owner[parents]
        logits = decoder.advance(parents, grown % log_probs.shape[1], owner)
    lengths = (tokens >= 0).sum(1)
    flat = [
        Completion(tuple(ids[:m].tolist()), tuple(values[:m].tolist()))
        for ids, values, m in zip(tokens, scores, lengths, strict=True)
    ]
    return [flat[i : i + n] for i in range(0, len(flat), n)]


@torch.inference_mode()
def _search(rewriter: Rewriter, prompts: Sequence[Sequence[int]], width: int, limit: int) -> list[list[Completion]]:
    """Beam search: hypotheses of a prompt that have ended stand beside those that go on."""
    rewriter.model.eval()
    decoder = _decoder(rewriter, prompts)
    end, device = rewriter.template.end_id, decoder.logits.device
    going: list[list[Completion]] = [[Completion((), ())] for _ in prompts]
    ended: list[list[Completion]] = [[] for _ in prompts]
    logits = decoder.logits
    for position in range(limit):
        log_probs = logits.float().log_softmax(-1)
        best = log_probs.topk(min(width, log_probs.shape[1]))
        choices = list(zip(best.values.tolist(), best.indices.tolist(), strict=True))
        parents, tokens, owners, row = [], [], [], 0
        for prompt, hypotheses in enumerate(going):
            grown = [
                (h, row + place, token, value)
                for place, h in enumerate(hypotheses)
                for value, token in zip(*choices[row + place], strict=True)
            ]
            row += len(hypotheses)
            candidates = [(_total(c), c, -1) for c in ended[prompt]]
            candidates += [
                (_total(h) + value, Completion((*h.token_ids, token), (*h.log_probs, value)), parent)
                for h, parent, token, value in grown
            ]
            kept = sorted(candidates, key=lambda c: -c[0])[:width]
            ended[prompt] = [c for _, c, parent in kept if parent < 0 or c.token_ids[-1] == end]
            alive = [(c, parent) for _, c, parent in kept if parent >= 0 and c.token_ids[-1] != end]
            going[prompt] = [c for c, _ in alive]
            parents += [parent for _, parent in alive]
            tokens += [c.token_ids[-1] for c, _ in alive]
            owners += [prompt] * len(alive)
        if position + 1 == limit or not parents:
            break
        logits = decoder.advance(*(torch.tensor(x, device=device) for x in (parents, tokens, owners)))
    return [sorted(e + g, key=lambda c: -_total(c)) for e, g in zip(ended, going, strict=True)]


def _total(completion: Completion) -> float:
    return sum(completion.log_probs)


def _decoder(rewriter: Rewriter, prompts: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]] | None = None) -> Decoder:
    if rewriter.paths.shared_prefix:
        return SharedPrefixDecoder(rewriter.model, prompts, drafts)
    return RecomputingDecoder(rewriter.model, prompts)
