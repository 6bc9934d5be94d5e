"""The shared-prefix decoder against every sequence alone; sampling against one sample at a time."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

from corewrite.domain import keyed_uniform
from corewrite.rewriter import Rewriter, sample
from corewrite.rewriter.decode import RecomputingDecoder, SharedPrefixDecoder
from corewrite.rewriter.generate import _inverse_cdf
from corewrite.rewriter.paths import ModelPaths

VOCABULARY = 61
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CONFIGS = {
    "llama": lambda: LlamaConfig(num_key_value_heads=4, **SHAPE),
    "llama, grouped keys": lambda: LlamaConfig(num_key_value_heads=2, **SHAPE),
    "qwen3, one key head": lambda: Qwen3Config(num_key_value_heads=1, head_dim=8, **SHAPE),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=16, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
    ),
}


@cache
def model_of(name, attention="sdpa", dtype=torch.float32):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from zero: attention and positions matter
            parameter += 0.3 * torch.randn_like(parameter)
    return model.to(dtype)


def alone(model, sequences):
    with torch.no_grad():
        return torch.stack([model(input_ids=torch.tensor([s])).logits[0, -1] for s in sequences])


class Tree:
    """Prompts and a decoder of them; whatever grows is compared with its sequences alone."""

    def __init__(self, model, prompts, kind=SharedPrefixDecoder):
        self.model, self.prompts = model, prompts
        with torch.no_grad():
            self.decoder = kind(model, prompts)
        self.rows = [(i, list(p)) for i, p in enumerate(prompts)]
        self.worst = self.compare(self.decoder.logits)

    def compare(self, logits):
        expected = alone(self.model, [ids for _, ids in self.rows])
        assert logits.shape == expected.shape and logits.dtype == expected.dtype
        return float((logits - expected).float().abs().max())

    def grow(self, parents, tokens):
        """`parents` in any order within a prompt; the logits."""
        parents = sorted(parents, key=lambda p: self.rows[p][0])
        self.rows = [(self.rows[p][0], [*self.rows[p][1], t]) for p, t in zip(parents, tokens, strict=True)]
        with torch.no_grad():
            logits = self.decoder.advance(*(torch.tensor(x) for x in (parents, tokens, [owner for owner, _ in self.rows])))
        self.worst = max(self.worst, self.compare(logits))
        return logits


PROMPTS = [list(range(3, 23)), [9], [5, 6, 7, 8], [30, 31, 32, 33, 34, 35, 36]]
# Of every call: whose child each row is. Branches, uneven numbers, a prompt that ends and one that never begins.
CALLS = [[0, 0, 0, 1, 3, 3], [2, 0, 0, 2, 3, 5], [1, 3, 0, 5], [0, 0, 0, 0], [3], [0]]


def tokens_of(step, parents):
    return [(7 * step + 11 * i + 3) % VOCABULARY for i in range(len(parents))]


def grown(model, kind=SharedPrefixDecoder):
    tree = Tree(model, PROMPTS, kind)
    for step, parents in enumerate(CALLS):
        tree.grow(parents, tokens_of(step, parents))
    assert {owner for owner, _ in tree.rows} == {0} and len(tree.rows[0][1]) == len(PROMPTS[0]) + len(CALLS)
    return tree


@pytest.mark.parametrize("kind", [SharedPrefixDecoder, RecomputingDecoder])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_tree_of_rows(name, attention, kind):
    assert grown(model_of(name, attention), kind).worst < 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_a_tree_of_rows_in_float64(name, monkeypatch):
    monkeypatch.setattr(torch, "float32", torch.float64)  # the norms of a model are computed in float32 whatever its weights
    assert grown(model_of(name, dtype=torch.float64)).worst < 1e-9


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=25)
@given(data=st.data())
def test_any_tree_of_rows(name, data):
    token = st.integers(0, VOCABULARY - 1)
    prompts = data.draw(st.lists(st.lists(token, min_size=1, max_size=8), min_size=1, max_size=4))
    tree = Tree(model_of(name), prompts)
    for _ in range(data.draw(st.integers(1, 4))):
        parents = data.draw(st.lists(st.integers(0, len(tree.rows) - 1), min_size=1, max_size=9))
        tree.grow(parents, data.draw(st.lists(token, min_size=len(parents), max_size=len(parents))))
    assert tree.worst < 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_bfloat16(name):
    """Decoding in bfloat16 is as close to float32 as a whole forward pass in bfloat16 is."""
    exact, half = model_of(name), model_of(name, dtype=torch.bfloat16)
    tree = Tree(half, PROMPTS)
    ours, plain = [], []
    for step, parents in enumerate(CALLS):
        logits = tree.grow(parents, tokens_of(step, parents))
        sequences = [ids for _, ids in tree.rows]
        expected = alone(exact, sequences)
        assert logits.dtype == torch.bfloat16 and torch.isfinite(logits).all()
        ours.append(float((logits.float() - expected).abs().mean()))
        plain.append(float((alone(half, sequences).float() - expected).abs().mean()))
    assert 1e-4 < np.mean(ours) < 1.5 * np.mean(plain)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_models_own_attention_is_restored(attention):
    model = model_of("llama", attention)
    tree = Tree(model, PROMPTS)
    assert model.config._attn_implementation == attention
    tree.grow([0, 1], [3, 4])
    assert model.config._attn_implementation == attention

    def fail(module, args):
        assert model.config._attn_implementation != attention
        raise RuntimeError("on purpose")

    handle = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        tree.grow([0, 1], [3, 4])
    handle.remove()
    assert model.config._attn_implementation == attention
    assert Tree(model, PROMPTS).worst < 1e-4


def test_the_prompts_keys_are_kept_once():
    """What a row adds to memory is its own tokens."""
    tree = Tree(model_of("llama, grouped keys"), PROMPTS)
    before = [(k.data_ptr(), k.shape) for pair in tree.decoder.prefix for k in pair]
    assert all(shape == (4, 2, 20, 4) for _, shape in before)
    tree.grow([0] * 30, list(range(30)))
    tree.grow(list(range(30)), list(range(30)))
    assert [(k.data_ptr(), k.shape) for pair in tree.decoder.prefix for k in pair] == before
    assert all(layer.keys.shape == (30, 2, 2, 4) for layer in tree.decoder._suffix.layers)


# Sampling.


def load_policy(model):
    return Rewriter(model, SimpleNamespace(eos_token_id=2), SimpleNamespace(end_id=2))


def drawn_alone(model, prompt, keys, limit):
    """One sample: the whole sequence at every token, the token by the inverse of the cumulated probabilities."""
    out, scores = [], []
    for position in range(limit):
        log_probs = alone(model, [[*prompt, *out]])[0].log_softmax(-1).double().numpy()
        cumulated = np.exp(log_probs).cumsum()
        u = float(keyed_uniform(*keys, position)) * cumulated[-1]
        out.append(int(np.searchsorted(cumulated, u, side="right")))
        scores.append(log_probs[out[-1]])
        if out[-1] == 2:
            break
    return out, scores


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", ["llama, grouped keys", "gpt2"])
def test_draws_do_not_depend_on_what_is_shared(name, shared):
    model = model_of(name)
    policy = load_policy(model)
    policy._paths = ModelPaths(packed=shared, shared_prefix=shared)
    n, limit = 30, 6
    found = sample(policy, PROMPTS, n, keys=[-5, 2**63, 11, 12], seed=4, phase=1, max_new_tokens=limit)
    beginnings = {(i, c.token_ids[:t]) for i, row in enumerate(found) for c in row for t in range(limit)}
    assert len(beginnings) < 0.8 * sum(len(c.token_ids) for row in found for c in row)  # equal ones do occur
    assert {len(c.token_ids) < limit for row in found for c in row} == {True, False}  # and early ends
    for key, prompt, row in zip([2**64 - 5, 2**63, 11, 12], PROMPTS, found, strict=True):
        for number, completion in enumerate(row):
            ids, scores = drawn_alone(model, prompt, (4, 1, key, number), limit)
            assert list(completion.token_ids) == ids
            assert completion.log_probs == pytest.approx(scores, abs=1e-4)


def chosen(probabilities, us):
    """Tokens drawn from each row of `probabilities` by each of `us`."""
    log_probs = torch.tensor(np.atleast_2d(probabilities), dtype=torch.float32).log()
    rows = torch.arange(len(log_probs)).repeat_interleave(len(us))
    return _inverse_cdf(log_probs, rows, np.tile(np.asarray(us, float), len(log_probs))).tolist()


ALMOST_ONE = 1 - 2**-53  # the largest number that keyed_uniform gives


@pytest.mark.parametrize("size", [1, 3, 63, 64, 65, 128, 200])
def test_the_ends_of_the_unit_interval(size):
    even = np.full(size, 1 / size)
    assert chosen(even, [0.0, ALMOST_ONE]) == [0, size - 1]
    if size >= 3:
        middle = even.copy()
        middle[[0, -1]] = 0
        assert chosen(middle, [0.0, ALMOST_ONE]) == [1, size - 2]
    for sure in {0, size // 2, size - 1}:
        only = np.zeros(size)
        only[sure] = 1
        assert chosen(only, [0.0, 1e-300, 0.5, ALMOST_ONE]) == [sure] * 4


def test_zeros_over_whole_blocks():
    holes = np.zeros(400)
    holes[[70, 330]] = 0.25, 0.75  # blocks 1 and 5 of 64
    assert chosen(holes, [0.0, 0.2499999, 0.25, 0.2500001, ALMOST_ONE]) == [70, 70, 330, 330, 330]


def test_a_token_owns_its_share_from_the_left():
    assert chosen([0.5, 0.25, 0.25], [0.0, 0.4999999, 0.5, 0.7499999, 0.75]) == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 200, 1000, 5000])
@pytest.mark.parametrize("spread", [0.1, 4.0, 30.0])
def test_draws_against_the_whole_sum(size, spread):
    rng = np.random.default_rng([size, int(spread)])
    log_probs = torch.tensor(spread * rng.standard_normal((7, size)), dtype=torch.float32).log_softmax(-1)
    rows, u = rng.integers(7, size=4000), rng.random(4000)
    tokens = _inverse_cdf(log_probs, torch.from_numpy(rows), u).numpy()
    probability = log_probs.exp().double().numpy()
    cumulated = probability.cumsum(1)
    target = u * cumulated[rows, -1]
    expected = np.array([np.searchsorted(cumulated[r], t, side="right") for r, t in zip(rows, target, strict=True)])
    differ = tokens != expected
    assert differ.mean() < 1e-3
    # Where they do, the draw stands at the border of the two within rounding (blocks are summed in float32).
    upper = cumulated[rows, tokens]
    lower = upper - probability[rows, tokens]
    assert (target[differ] >= lower[differ] - 1e-6).all() and (target[differ] <= upper[differ] + 1e-6).all()
    assert (probability[rows, tokens] > 0).all()
