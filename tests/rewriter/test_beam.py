"""Beam search: by hand, against every sequence there is, and against that of transformers."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from corewrite.domain import Query
from corewrite.rewriter import Rewriter, beam, greedy
from corewrite.rewriter.paths import ModelPaths

END = 2


class NumbersTemplate:
    """Prompts and rewrites are numbers in words' clothing."""

    config = SimpleNamespace(max_tokens=12)
    end_id = END

    def encode(self, query):
        return self.encode_text(query.text)

    def encode_text(self, text):
        return [int(word) for word in text.split()]

    def encode_rewrite(self, text):
        return self.encode_text(text)

    def decode(self, ids):
        return " ".join(str(i) for i in ids if i != END)

    def holds_reserved(self, ids):
        return END in ids


def load_policy(model, paths=None):
    return Rewriter(model, SimpleNamespace(eos_token_id=END), NumbersTemplate(), paths)


class Bigram(nn.Module):
    """A language model with the next token's probabilities in a table."""

    def __init__(self, table):
        super().__init__()
        self.rows = nn.Embedding.from_pretrained(torch.tensor(table).clamp(min=1e-30).log())
        self.head = nn.Linear(len(table), len(table), bias=False)
        nn.init.eye_(self.head.weight)

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.head(self.rows(input_ids)))


# After 0: 1 is likelier than 3; but from 3 one goes on surely, and from 1 in many ways. 2 ends.
TABLE = [
    [0.00, 0.50, 0.10, 0.40, 0.00],
    [0.18, 0.18, 0.30, 0.17, 0.17],
    [0.20, 0.20, 0.20, 0.20, 0.20],
    [0.00, 0.00, 0.05, 0.00, 0.95],
    [0.00, 0.00, 0.90, 0.10, 0.00],
]


def found(width, limit, prompts=("0",)):
    rows = beam(load_policy(Bigram(TABLE), ModelPaths(False, False)), [Query(p) for p in prompts], width, max_new_tokens=limit)
    return [[(list(r.token_ids), round(float(np.exp(r.log_prob)), 4)) for r in row] for row in rows]


def test_by_hand():
    # One at a time: the likelier beginning, which is the worse one.
    assert found(1, 3) == [[([1, 2], 0.15)]]
    # Two: [3] 0.40, [1] 0.50 -> [3, 4] 0.38, [1, 2] 0.15 (ended, keeps its place) -> [3, 4, 2] 0.342, [1, 2] 0.15.
    assert found(2, 1) == [[([1], 0.5), ([3], 0.4)]]
    assert found(2, 2) == [[([3, 4], 0.38), ([1, 2], 0.15)]]
    assert found(2, 3) == [[([3, 4, 2], 0.342), ([1, 2], 0.15)]]
    # Three: [2] 0.10 ends at once and stays, before [1, 0] 0.09 and others.
    assert found(3, 1) == [[([1], 0.5), ([3], 0.4), ([2], 0.1)]]
    assert found(3, 2) == [[([3, 4], 0.38), ([1, 2], 0.15), ([2], 0.1)]]


def test_what_has_ended_waits_for_better_ones():
    # [2] ended first; [1, 2] and [3, 4, 2] end later and stand before it; it falls out of a beam of two.
    assert found(3, 3) == [[([3, 4, 2], 0.342), ([1, 2], 0.15), ([2], 0.1)]]
    assert found(3, 9) == found(3, 3)
    assert ([2], 0.1) not in found(2, 9)[0]


def test_prompts_do_not_mix():
    prompts = ("0", "1 1 1", "4", "3 0", "0")
    together = found(3, 4, prompts)
    assert together == [found(3, 4, (p,))[0] for p in prompts]
    assert together[0] == together[4] and together[2] == [([2], 0.9), ([3, 4, 2], 0.0855), ([3, 4, 3, 4], 0.009)]


def tiny(vocabulary, seed=0, scale=1.0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=END,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * 0.3 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def next_log_probs(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1).tolist()


def every_sequence(model, prompt, limit):
    """(score, ids) of all sequences that end or reach the limit, best first."""
    out, open_ones = [], [(0.0, [])]
    while open_ones:
        score, ids = open_ones.pop()
        if len(ids) == limit or END in ids:
            out.append((score, ids))
        else:
            open_ones += [(score + v, [*ids, t]) for t, v in enumerate(next_log_probs(model, [*prompt, *ids]))]
    return sorted(out, reverse=True)


PROMPTS = [[1, 3, 0, 3, 1], [3], [0, 3, 3]]
QUERIES = [Query(" ".join(map(str, p))) for p in PROMPTS]


@pytest.mark.parametrize("shared", [True, False])
def test_wide_enough_it_finds_everything(shared):
    model, limit = tiny(4), 4
    rows = beam(load_policy(model, ModelPaths(shared, shared)), QUERIES, 200, max_new_tokens=limit)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        everything = every_sequence(model, prompt, limit)
        assert len(everything) == len(row) == 1 + 3 + 9 + 27 * 4
        assert sum(np.exp(r.log_prob) for r in row) == pytest.approx(1, abs=1e-4)
        assert [list(r.token_ids) for r in row] == [ids for _, ids in everything]
        assert [r.log_prob for r in row] == pytest.approx([score for score, _ in everything], abs=1e-4)
        assert [r.ended for r in row] == [ids[-1] == END for _, ids in everything]
    best = beam(load_policy(model, ModelPaths(shared, shared)), QUERIES, 60, max_new_tokens=limit)
    assert [b[0].token_ids for b in best] == [r[0].token_ids for r in rows]


def beam_by_hand(model, prompt, width, limit):
    """Every hypothesis alone and whole, every extension looked at."""
    beam_of = [(0.0, [])]
    for _ in range(limit):
        candidates = []
        for score, ids in beam_of:
            if END in ids:
                candidates.append((score, ids))
            else:
                candidates += [(score + v, [*ids, t]) for t, v in enumerate(next_log_probs(model, [*prompt, *ids]))]
        beam_of = sorted(candidates, reverse=True)[:width]
    return beam_of


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 20])
def test_any_width(width, shared):
    model = tiny(11, seed=4)
    rows = beam(load_policy(model, ModelPaths(shared, shared)), QUERIES, width, max_new_tokens=5)
    ends = set()
    for prompt, row in zip(PROMPTS, rows, strict=True):
        expected = beam_by_hand(model, prompt, width, 5)
        assert [list(r.token_ids) for r in row] == [ids for _, ids in expected]
        assert [r.log_prob for r in row] == pytest.approx([score for score, _ in expected], abs=1e-4)
        assert [r.log_prob for r in row] == sorted((r.log_prob for r in row), reverse=True)
        ends |= {r.ended for r in row}
    assert width == 1 or ends == {True, False}


def test_a_beam_of_one_is_greedy():
    for seed, vocabulary in product(range(4), (4, 11)):
        policy = load_policy(tiny(vocabulary, seed))
        best = greedy(policy, QUERIES, max_new_tokens=6)
        for one, (only,) in zip(best, beam(policy, QUERIES, 1, max_new_tokens=6), strict=True):
            assert (only.text, only.token_ids, only.ended) == (one.text, one.token_ids, one.ended)
            assert only.log_prob == pytest.approx(one.log_prob, abs=1e-4)


def theirs(model, prompt, width, limit):
    """The hypotheses of transformers' own search by summed log-probability."""
    out = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), num_beams=width,
        num_return_sequences=width, length_penalty=0.0, early_stopping="never", do_sample=False, max_new_tokens=limit,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    rows = []
    for ids, score in zip(out.sequences[:, len(prompt) :].tolist(), out.sequences_scores.tolist(), strict=True):
        rows.append((ids[: ids.index(END) + 1] if END in ids else ids, score))
    return rows


@pytest.mark.parametrize("width", [2, 4, 7])
def test_agrees_with_transformers_where_nothing_ends(width):
    """Theirs keeps the ended beside the beam, ours in it: the same while none ends."""
    model = tiny(11, seed=4)
    handle = model.lm_head.register_forward_hook(lambda module, args, out: out - 50 * (torch.arange(11) == END))
    for prompt, row in zip(PROMPTS, beam(load_policy(model), QUERIES, width, max_new_tokens=5), strict=True):
        expected = theirs(model, prompt, width, 5)
        assert [list(r.token_ids) for r in row] == [ids for ids, _ in expected]
        assert [r.log_prob for r in row] == pytest.approx([score for _, score in expected], abs=1e-4)
        assert len(row) == width and not any(r.ended for r in row)
    handle.remove()


def test_agrees_with_transformers_on_the_best_of_all():
    """Both find the best sequences when the beam is wide enough for all of them."""
    model = tiny(4)
    for prompt, row in zip(PROMPTS, beam(load_policy(model), QUERIES, 120, max_new_tokens=4), strict=True):
        expected = theirs(model, prompt, 120, 4)
        assert [list(r.token_ids) for r in row[:40]] == [ids for ids, _ in expected[:40]]
        assert [r.log_prob for r in row[:40]] == pytest.approx([score for _, score in expected[:40]], abs=1e-4)


def test_nothing_to_search():
    policy = load_policy(tiny(4))
    assert beam(policy, [], 3) == []
    with pytest.raises(ValueError, match="width of at least 1, not 0"):
        beam(policy, QUERIES, 0)


def test_equal_prompts_are_searched_once_and_counted():
    seen = []
    rows = beam(load_policy(tiny(4)), [*QUERIES, QUERIES[0]], 2, max_new_tokens=3, progress=lambda *done: seen.append(done))
    assert rows[0] == rows[3] and seen[-1] == (3, 3)
