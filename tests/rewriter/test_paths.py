"""Which models may take the short cuts; those that may not still sample and learn right."""

import warnings

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
)

from corewrite.domain import keyed_uniform
from corewrite.rewriter import Rewriter, SlowPathWarning, beam, greedy, probe_paths, response_log_probs, sample

PROMPT = 96  # tokens, as of the default template
SHAPE = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
GEMMA = {"head_dim": 4, "query_pre_attn_scalar": 9}  # scores are not scaled by the root of the size
BARE = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
CONFIGS = {
    "llama": lambda n: LlamaConfig(vocab_size=n, **SHAPE),
    "qwen3": lambda n: Qwen3Config(vocab_size=n, head_dim=4, **SHAPE),
    "gpt2": lambda n: GPT2Config(vocab_size=n, n_positions=256, n_embd=16, n_layer=2, n_head=4, **BARE),
    "mistral, window 8": lambda n: MistralConfig(vocab_size=n, sliding_window=8, **SHAPE),
    "mistral, window 60": lambda n: MistralConfig(vocab_size=n, sliding_window=60, **SHAPE),
    "mistral, window 200": lambda n: MistralConfig(vocab_size=n, sliding_window=200, **SHAPE),
    "gemma2": lambda n: Gemma2Config(vocab_size=n, **GEMMA, **SHAPE),
    "gemma3": lambda n: Gemma3TextConfig(vocab_size=n, **GEMMA, **SHAPE),
    "gemma3, window 60": lambda n: Gemma3TextConfig(vocab_size=n, sliding_window=60, **GEMMA, **SHAPE),
    "bloom": lambda n: BloomConfig(vocab_size=n, hidden_size=16, n_layer=2, n_head=4, **BARE),
    "mamba": lambda n: MambaConfig(vocab_size=n, hidden_size=16, num_hidden_layers=2, state_size=4, **BARE),
}
REFUSED = ["mistral, window 8", "bloom", "mamba"]


def model_of(name, vocabulary=61, **options):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[name](vocabulary), **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from zero: attention and positions matter
            parameter += 0.2 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "mistral, window 200", "gemma3"])
def test_models_that_may(name, attention):
    paths = probe_paths(model_of(name, attn_implementation=attention), PROMPT)
    assert (paths.packed, paths.shared_prefix, paths.reasons) == (True, True, ())


def test_gemma2_may_with_its_own_attention():
    paths = probe_paths(model_of("gemma2", attn_implementation="eager"), PROMPT)
    assert (paths.packed, paths.shared_prefix, paths.reasons) == (True, True, ())


@pytest.mark.parametrize(
    ("name", "owner"),
    [("mistral, window 8", "MistralForCausalLM"), ("bloom", "BloomForCausalLM"), ("mamba", "MambaForCausalLM")],
)
def test_models_that_may_not(name, owner):
    paths = probe_paths(model_of(name), PROMPT)
    assert (paths.packed, paths.shared_prefix) == (False, False)
    packed, shared = paths.reasons
    assert packed.startswith(f"packed rows: {owner} ") and shared.startswith(f"shared prefixes: {owner} ")


@pytest.mark.parametrize("name", ["mistral, window 60", "gemma3, window 60"])
def test_a_window_shows_itself_at_length(name):
    model = model_of(name)
    assert probe_paths(model, 20) == probe_paths(model, 40)
    assert probe_paths(model, 40).packed and probe_paths(model, 40).shared_prefix
    long = probe_paths(model, PROMPT)
    assert not long.packed and not long.shared_prefix
    assert all(f"at {PROMPT} tokens" in reason for reason in long.reasons)


def load_policy(name, like: Rewriter) -> Rewriter:
    return Rewriter(model_of(name, len(like.tokenizer)), like.tokenizer, like.template)


def next_log_probs(policy, ids):
    with torch.no_grad():
        return (
            policy.model(input_ids=torch.tensor([ids], device=policy.model.device))
            .logits[0, -1]
            .log_softmax(-1)
            .double()
            .cpu()
            .numpy()
        )


def drawn_by_hand(policy, prompt, keys, limit):
    """One sample, alone: the whole sequence at every token, the token by the inverse of the cumulated probabilities."""
    out, scores = [], []
    for position in range(limit):
        log_probs = next_log_probs(policy, [*prompt, *out])
        cumulated = np.exp(log_probs).cumsum()
        u = float(keyed_uniform(*keys, position)) * cumulated[-1]
        out.append(int(np.searchsorted(cumulated, u, side="right")))
        scores.append(log_probs[out[-1]])
        if out[-1] == policy.tokenizer.eos_token_id:
            break
    return out, scores


@pytest.mark.parametrize("name", [*REFUSED, "llama"])
def test_models_that_may_not_still_sample_right(name, rewriter, queries):
    policy = load_policy(name, rewriter)
    assert policy.paths.shared_prefix == (name == "llama")
    prompts = [policy.template.encode(q) for q in queries[4:7]]
    assert len({len(p) for p in prompts}) > 1
    found = sample(policy, prompts, 3, keys=[7, 8, 9], seed=5, phase=2, max_new_tokens=6)
    for i, prompt in enumerate(prompts):
        for number in range(3):
            ids, scores = drawn_by_hand(policy, prompt, (5, 2, 7 + i, number), 6)
            assert list(found[i][number].token_ids) == ids
            assert found[i][number].log_probs == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_may_not_still_decode_right(name, rewriter, queries):
    policy = load_policy(name, rewriter)
    for query, best, hypotheses in zip(
        queries[5:7],
        greedy(policy, queries[5:7], max_new_tokens=4),
        beam(policy, queries[5:7], 3, max_new_tokens=2),
        strict=True,
    ):
        prompt, out = policy.template.encode(query), []
        while len(out) < 4 and policy.tokenizer.eos_token_id not in out:
            out.append(int(next_log_probs(policy, [*prompt, *out]).argmax()))
        assert list(best.token_ids) == out
        for rewrite in hypotheses:
            scores = [next_log_probs(policy, [*prompt, *rewrite.token_ids[:t]])[y] for t, y in enumerate(rewrite.token_ids)]
            assert rewrite.log_prob == pytest.approx(sum(scores), abs=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_may_not_still_learn_right(name):
    """The plain way, right-padded and unmasked, against each sequence alone: values and gradients."""
    model = model_of(name)
    prompts, responses = [list(range(3, 33)), [7, 8], [9, 4, 5]], [[5, 1], [6, 7, 8, 9, 10, 11, 1], [1]]
    values = response_log_probs(model, prompts, responses)
    alone = [
        model(input_ids=torch.tensor([[*x, *y[:-1]]])).logits[0, len(x) - 1 :].log_softmax(-1)[range(len(y)), y]
        for x, y in zip(prompts, responses, strict=True)
    ]
    expected = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True)
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    found, right = (torch.autograd.grad((weights * v).sum(), list(model.parameters())) for v in (values, expected))
    largest = max(float(g.abs().max()) for g in right)
    assert max(float((a - b).abs().max()) for a, b in zip(found, right, strict=True)) <= 1e-4 * largest


def test_what_a_model_may_not_is_said(rewriter):
    with pytest.warns(SlowPathWarning) as said:
        assert not load_policy("bloom", rewriter).paths.packed
    ours = [str(w.message) for w in said if w.category is SlowPathWarning]
    assert [reason.split(":")[0] for reason in ours] == ["packed rows", "shared prefixes"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowPathWarning)
        assert load_policy("llama", rewriter).copy().paths.packed


def test_dropout_is_no_difference():
    """A model as `transformers` makes it is in training mode."""
    model = model_of("gpt2").train()
    assert model.config.attn_pdrop > 0 and probe_paths(model, PROMPT).reasons == ()
    assert model.training


def test_paths_are_probed_at_the_longest_prompt(rewriter):
    """A window that only the longest prompts outgrow."""
    model = model_of("mistral, window 60", len(rewriter.tokenizer))
    assert rewriter.template.config.max_tokens == PROMPT
    assert not Rewriter(model, rewriter.tokenizer, rewriter.template).paths.packed


def test_paths_are_probed_at_the_longest_rewrite(rewriter):
    """A window that fits the longest prompt and a few tokens, not a whole rewrite."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(
        MistralConfig(vocab_size=len(rewriter.tokenizer), sliding_window=104, **SHAPE)
    ).eval()
    paths = Rewriter(model, rewriter.tokenizer, rewriter.template).paths
    assert not paths.packed and not paths.shared_prefix
