"""Memory predicted, against what real passes keep."""

from dataclasses import replace

import pytest
import torch

from corewrite.capacity.memory import predict_memory
from corewrite.rewriter import Rewriter, multiplies_bfloat16, new_small_decoder
from corewrite.training import TrainingConfig

CONFIG = TrainingConfig(tokens_per_micro_batch=1_024)


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def policy(request):
    made = new_small_decoder(["cat show", "dog race"] * 20, seed=0, vocabulary=300, width=64, heads=4)
    made.model.set_attn_implementation(request.param)
    return made


def kept(policy: Rewriter, rows: int, prompt: int, rewrite: int) -> int:
    """Bytes that autograd keeps of a real pass, the weights left out."""
    own = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = policy.log_probs([[0] * prompt] * rows, [[[0] * rewrite] * 2] * rows)
        return held.numel() * 0 + sum(seen.values())


def test_a_token_of_a_micro_batch_takes_what_a_real_pass_keeps(policy):
    """What is kept grows with the rows; beyond it only what the backward pass is at work on."""
    found = predict_memory(policy, CONFIG, 32)
    prompt, rewrite = 24, 8
    tokens = prompt + 2 * (rewrite - 1)
    real = (kept(policy, 16, prompt, rewrite) - kept(policy, 8, prompt, rewrite)) / (8 * tokens)
    assert real <= found.bytes_per_token <= 1.35 * real


def test_copies_of_the_weights_are_counted(policy):
    found, weights = predict_memory(policy, CONFIG, 32), 4 * policy.parameters
    sampler = weights / 2 if multiplies_bfloat16(torch.device("cpu")) else weights
    assert found.weights == weights
    # Start, policy, reference, two moments, gradients, sampler.
    assert found.training >= 6 * weights + sampler + CONFIG.tokens_per_micro_batch * 0.9 * found.bytes_per_token
    assert weights < found.serving < 2 * weights
    assert found.training_lora is not None and found.training_lora < found.training


def test_a_prediction_changes_nothing(policy):
    before, attention = policy.policy_hash, policy.model.config._attn_implementation
    state = torch.random.get_rng_state()
    assert predict_memory(policy, CONFIG, 32) == predict_memory(policy, CONFIG, 32)
    assert policy.policy_hash == before and policy.model.config._attn_implementation == attention
    assert all(p.grad is None and p.device.type == "cpu" for p in policy.model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_more_tokens_take_more_and_what_fits_is_said(policy):
    small, large = (predict_memory(policy, TrainingConfig(tokens_per_micro_batch=n), 32) for n in (512, 4_096))
    assert large.training - small.training == pytest.approx(3_584 * large.bytes_per_token, rel=0.1)
    fits = large.tokens_that_fit(small.training)
    assert fits == pytest.approx(512, rel=0.15)
    assert replace(large, tokens_per_micro_batch=4_096).tokens_that_fit(0) == 0


def test_too_short_examples_are_refused(policy):
    with pytest.raises(ValueError, match="example_tokens must be at least 4, not 3"):
        predict_memory(policy, CONFIG, 3)
