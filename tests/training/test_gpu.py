"""The GPU's own ways; skipped where there is none."""

import pytest
import torch

from corewrite.rewriter import packed_log_probs, response_log_probs
from corewrite.training import TrainingConfig, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_training_on_the_gpu_samples_learns_and_checkpoints(start, instances, toy_reward, tmp_path):
    policy = start.copy()
    assert policy.model.device.type == "cuda"
    config = TrainingConfig(
        phases=2, instances_per_phase=16, num_generations=8, k=2, pairs_per_step=8, max_new_tokens=6, precision="bfloat16"
    )  # fmt: skip
    report = train(policy, instances, toy_reward, config, tmp_path, seed=3, provenance={})
    assert report.phases == 2 and policy.policy_hash != start.policy_hash
    again = start.copy()
    train(again, instances, toy_reward, config, tmp_path, seed=3, provenance={})
    assert again.policy_hash == policy.policy_hash, "the checkpoint holds the weights"


def test_flex_attention_hides_the_responses_from_each_other(start):
    policy = start.copy()
    prompts = [[2, 7, 9, 11, 5], [2, 8, 5]]
    responses = [[[20, 21, 1], [22, 1]], [[1], [23, 24, 25, 1]]]
    flat = [y for ys in responses for y in ys]
    with torch.no_grad():
        plain = response_log_probs(policy.model, [x for x, ys in zip(prompts, responses, strict=True) for _ in ys], flat)
        policy.model.set_attn_implementation("flex_attention")
        packed = packed_log_probs(policy.model, prompts, responses)
    assert float((plain - packed).abs().max()) < 1e-4
