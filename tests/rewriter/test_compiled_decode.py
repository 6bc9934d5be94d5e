"""Decoding by compiled layers against the plain decoder: the same samples, few graphs."""

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

from corewrite.rewriter import PromptTemplate, Rewriter, TemplateConfig, new_small_decoder, sample
from corewrite.rewriter.compiled_decode import CompiledModel

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "eos_token_id": 1}
CONFIGS = {
    "qwen3": lambda n: Qwen3Config(vocab_size=n, num_key_value_heads=2, head_dim=8, **SHAPE),
    "llama": lambda n: LlamaConfig(vocab_size=n, num_key_value_heads=4, **SHAPE),
    "gpt2": lambda n: GPT2Config(vocab_size=n, n_positions=99, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1),
}
_DECODER = new_small_decoder(["cat dog bird"] * 9, seed=0, vocabulary=300, width=32, layers=1, heads=2)
TOKENIZER, DEVICE = _DECODER.tokenizer, _DECODER.model.device


def policy_of(name):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[name](len(TOKENIZER)), attn_implementation="sdpa").to(DEVICE).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from zero: attention and positions matter
            parameter += 0.25 * torch.randn_like(parameter)
    return Rewriter(model, TOKENIZER, PromptTemplate(TOKENIZER, TemplateConfig()))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_samples_are_those_of_the_plain_decoder(name):
    policy, counted = policy_of(name), counters["stats"]["unique_graphs"]
    compiled = CompiledModel(policy.copy().model)
    draw = np.random.default_rng(1)
    for n, lengths in ((8, [5, 31, 9, 17, 16]), (3, [40, 2]), (12, [3, 3, 3]), (8, [60, 20, 21, 22, 23, 24, 33])):
        prompts = [draw.integers(5, len(TOKENIZER), m).tolist() for m in lengths]
        given = {"keys": range(len(prompts)), "seed": 4, "phase": 1, "max_new_tokens": 6}
        plain = sample(policy, prompts, n, **given)
        found = sample(policy, prompts, n, **given, compiled=compiled)
        assert [[c.token_ids for c in row] for row in found] == [[c.token_ids for c in row] for row in plain]
        assert any(len(c.token_ids) == 6 for row in plain for c in row)
        for a, b in zip((c for row in found for c in row), (c for row in plain for c in row), strict=True):
            assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)
    assert 2 <= counters["stats"]["unique_graphs"] - counted <= 4


def test_it_samples_from_the_weights_that_it_is_given_later():
    policy = policy_of("llama")
    twin = policy.copy()
    compiled = CompiledModel(twin.model)
    prompts, given = [[5, 6, 7], [8, 9]], {"keys": [1, 2], "seed": 4, "phase": 1, "max_new_tokens": 6}
    before = sample(policy, prompts, 8, **given, compiled=compiled)
    with torch.no_grad():
        for own, parameter in zip(twin.model.parameters(), policy.model.parameters(), strict=True):
            parameter += 0.25 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)).to(parameter.device)
            own.copy_(parameter)
    after = sample(policy, prompts, 8, **given, compiled=compiled)
    assert [[c.token_ids for c in row] for row in after] == [
        [c.token_ids for c in row] for row in sample(policy, prompts, 8, **given)
    ]
    assert after != before
