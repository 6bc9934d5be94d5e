"""Packed rows against one sequence at a time, unpadded, through the whole head: values and gradients."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPT2Config, GraniteConfig, LlamaConfig, Qwen3Config

from corewrite.rewriter import packed_log_probs, response_log_probs
from corewrite.rewriter.log_probs import block_mask, head_at

VOCABULARY, POSITIONS = 61, 27
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": POSITIONS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
NARROW = {"head_dim": 4}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "qwen3": lambda: Qwen3Config(**SHAPE, **NARROW),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=16, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
    ),
    # What these do to their logits comes after the head.
    "gemma2": lambda: Gemma2Config(**SHAPE, **NARROW, query_pre_attn_scalar=4, final_logit_softcapping=0.7),
    "cohere": lambda: CohereConfig(**SHAPE, logit_scale=0.3),
    "granite": lambda: GraniteConfig(**SHAPE, logits_scaling=5.0),
}
FAMILIES = ["llama", "qwen3", "gpt2"]
ATTENTION = ["sdpa", "eager"]


@cache
def model_of(family, attention="eager", dtype=torch.float32):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[family](), attn_implementation=attention).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from zero: attention and positions matter
            parameter += 0.2 * torch.randn_like(parameter)
    assert model.config._attn_implementation == attention
    return model


def by_hand(model, prompts, responses):
    """Every sequence alone."""
    found = []
    for x, ys in zip(prompts, responses, strict=True):
        for y in ys:
            log_probs = model(input_ids=torch.tensor([[*x, *y]])).logits[0].log_softmax(-1)
            found.append(torch.stack([log_probs[len(x) + t - 1, token] for t, token in enumerate(y)]))
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True)


def gradients(model, values):
    """Of a sum in which every token counts differently: a swapped pair of values would show."""
    weights = torch.arange(1, values.numel() + 1, dtype=values.dtype).sin().view_as(values)
    return torch.autograd.grad((weights * values).sum(), list(model.parameters()))


def compare(model, prompts, responses, value_limit, gradient_limit):
    flat = [(x, y) for x, ys in zip(prompts, responses, strict=True) for y in ys]
    expected = by_hand(model, prompts, responses)
    slopes = gradients(model, expected)
    largest = max(float(g.abs().max()) for g in slopes)
    for values in (packed_log_probs(model, prompts, responses), response_log_probs(model, *zip(*flat, strict=True))):
        assert values.dtype == expected.dtype and values.shape == expected.shape
        assert float((values - expected).detach().abs().max()) <= value_limit
        off = max(float((a - b).abs().max()) for a, b in zip(gradients(model, values), slopes, strict=True))
        assert off <= gradient_limit * largest


@pytest.fixture
def wide(monkeypatch):
    """What a model computes in float32 whatever its weights (norms, eager softmax) in float64."""
    monkeypatch.setattr(torch, "float32", torch.float64)


token = st.integers(0, VOCABULARY - 1)
responses = st.lists(st.lists(token, min_size=1, max_size=6), min_size=1, max_size=5)
rows = st.lists(st.tuples(st.lists(token, min_size=1, max_size=9), responses), min_size=1, max_size=3)
# Unequal prompts, one to five responses, one-token responses alone and among others, a row wider than the positions.
ROWS = [
    (list(range(3, 23)), [[5, 9, 2], [7], [8, 8, 8, 8, 8, 2], [4, 3, 2], [11, 12, 13, 14, 15, 16]]),
    ([9], [[2]]),
    ([1, 2, 3, 4, 5], [[6, 2], [2]]),
]


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_unpacked_in_float64(family, attention, wide):
    compare(model_of(family, attention, torch.double), *zip(*ROWS, strict=True), 1e-9, 1e-9)


def test_float64_is_kept():
    """GPT-2 on torch's own attention computes nothing in float32 by itself: neither do we."""
    compare(model_of("gpt2", "sdpa", torch.double), *zip(*ROWS, strict=True), 1e-12, 1e-12)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_unpacked_in_float32(family, attention):
    compare(model_of(family, attention), *zip(*ROWS, strict=True), 1e-5, 1e-4)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=30)
@given(rows=rows)
def test_packed_equals_unpacked_of_any_shape(family, attention, rows):
    compare(model_of(family, attention), *zip(*rows, strict=True), 1e-5, 1e-4)


def test_a_row_may_be_longer_than_any_sequence_of_the_model():
    (prompt, responses), *_ = ROWS
    assert len(prompt) + max(map(len, responses)) < POSITIONS < len(prompt) + sum(len(y) - 1 for y in responses)


@pytest.mark.parametrize("family", ["gemma2", "cohere", "granite"])
def test_what_a_model_does_to_its_logits_is_kept(family):
    model = model_of(family)
    seen = []
    handle = model.get_output_embeddings().register_forward_hook(lambda module, args, out: seen.append(out))
    compare(model, *zip(*ROWS, strict=True), 1e-5, 1e-4)
    ids = torch.tensor([ROWS[0][0]])
    with head_at(model, torch.tensor([0, 0]), torch.tensor([19, 4])):
        logits = model(input_ids=ids).logits
    handle.remove()
    # ... and it is something: the head's own output is another.
    assert seen[-1].shape == (2, VOCABULARY)
    assert float((seen[-1].log_softmax(-1) - logits.log_softmax(-1)).detach().abs().max()) > 0.1
    torch.testing.assert_close(logits, model(input_ids=ids).logits[0, [19, 4]], atol=1e-5, rtol=1e-5)


def test_the_head_is_whole_again_afterwards():
    model, ids = model_of("llama"), torch.tensor([[3, 4, 5]])
    with pytest.raises(RuntimeError, match="on purpose"), head_at(model, torch.tensor([0]), torch.tensor([2])):
        assert model(input_ids=ids).logits.shape == (1, VOCABULARY)
        raise RuntimeError("on purpose")
    assert model(input_ids=ids).logits.shape == (1, 3, VOCABULARY)
    with (
        pytest.raises(ValueError, match=r"LlamaModel has no LM head"),
        head_at(model.model, torch.tensor([0]), torch.tensor([2])),
    ):
        pass


SEES = """
    x x x a a b b .
  x 1 0 0 0 0 0 0 0
  x 1 1 0 0 0 0 0 0
  x 1 1 1 0 0 0 0 0
  a 1 1 1 1 0 0 0 0
  a 1 1 1 1 1 0 0 0
  b 1 1 1 0 0 1 0 0
  b 1 1 1 0 0 1 1 0
"""


@pytest.mark.parametrize("attention", ATTENTION)
def test_who_sees_whom(attention):
    mask = block_mask(model_of("llama", attention), torch.tensor([[0, 0, 0, 1, 1, 2, 2, -1]]))
    expected = torch.tensor([[int(v) for v in line.split()[1:]] for line in SEES.strip().splitlines()[1:]], dtype=torch.bool)
    assert mask.shape == (1, 1, 8, 8)
    allowed = mask if attention == "sdpa" else mask == 0
    assert torch.equal(allowed[0, 0, :7], expected)
    assert allowed[0, 0, 7, 7]  # padding: no softmax over nothing
    if attention == "eager":
        assert float(mask.max()) == 0 and float(mask[mask != 0].max()) < -1e30


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_in_bfloat16(family, attention):
    """Autocast or whole: as close to float32 as one sequence at a time is."""
    prompts, responses = zip(*ROWS, strict=True)
    flat = [(x, y) for x, ys in ROWS for y in ys]
    with torch.no_grad():
        exact = by_hand(model_of(family), prompts, responses)
        with torch.autocast("cpu", torch.bfloat16):
            halves = [packed_log_probs(model_of(family, attention), prompts, responses)]
            halves.append(response_log_probs(model_of(family, attention), *zip(*flat, strict=True)))
        model = model_of(family, attention, torch.bfloat16)
        halves.append(packed_log_probs(model, prompts, responses))
        halves.append(response_log_probs(model, *zip(*flat, strict=True)))
    packed, plain, whole_packed, whole_plain = (float((h - exact).abs().mean()) for h in halves)
    assert all(h.dtype == torch.float32 for h in halves)
    assert 1e-4 < packed < 2 * plain + 0.01
    assert 1e-4 < whole_packed < 2 * whole_plain + 0.01
    assert max(plain, whole_plain) < 0.1
