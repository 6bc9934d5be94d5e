"""The GPU's own ways; skipped where there is none."""

from concurrent.futures import Future

import pytest
import torch

from corewrite.rewriter import packed_log_probs, response_log_probs, sample
from corewrite.training import InProcessEngine, TrainingConfig, train
from corewrite.training.gradient_pass import GradientPass, resolved_precision

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CONFIG = TrainingConfig(
    phases=2, instances_per_phase=16, num_generations=8, k=2, pairs_per_step=8, max_new_tokens=6, checkpoint_minutes=1e-9
)  # fmt: skip


def run(start, instances, reward, folder, **options):
    policy = start.copy()
    report = train(policy, instances, reward, CONFIG, folder, seed=3, provenance={}, **options)
    return policy, report


def test_training_on_the_gpu_learns_and_is_bitwise_the_same_twice_and_resumed(start, instances, toy_reward, tmp_path):
    assert start.model.device.type == "cuda" and resolved_precision(CONFIG.precision, start.model.device) == "bfloat16"
    policy, report = run(start, instances, toy_reward, tmp_path / "a")
    assert report.phases == 2 and policy.policy_hash != start.policy_hash
    again, _ = run(start, instances, toy_reward, tmp_path / "b")
    assert again.policy_hash == policy.policy_hash

    def stop(phase, _policy):
        if phase == 1:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        run(start, instances, toy_reward, tmp_path / "c", observe=stop)
    resumed, _ = run(start, instances, toy_reward, tmp_path / "c")
    assert resumed.policy_hash == policy.policy_hash


def test_the_default_pass_is_compiled(start):
    passes = GradientPass(start, CONFIG)
    assert passes.compiled and passes.rounds


def test_the_default_sampler_is_compiled_and_draws_what_the_plain_one_does(start):
    compiled, plain = InProcessEngine(start, "float32"), InProcessEngine(start, "float32", compiled=False)
    prompts, given = [[2, 7, 9, 11, 5], [2, 8, 5], [3, 3]], {"keys": [1, 2, 3], "seed": 0, "phase": 0, "max_new_tokens": 6}
    found = [e.sample(prompts, 8, expected=e.sync(start).version, **given) for e in (compiled, plain)]
    assert compiled._compiled is not None and plain._compiled is None
    assert [[c.token_ids for c in row] for row in found[0]] == [[c.token_ids for c in row] for row in found[1]]


def test_a_hash_beside_the_sampling_is_that_of_the_weights(start):
    from corewrite.training.samplers.in_process import hashed_beside

    policy = start.copy()
    with torch.no_grad():
        for p in policy.model.parameters():
            p += 0.5  # not done yet when the hash begins
    hashing = hashed_beside(policy)
    assert isinstance(hashing, Future)
    assert hashing.result() == policy.policy_hash


def test_samples_do_not_depend_on_how_many_prompts_are_computed_together(start, monkeypatch):
    prompts = [[2, 7, 9, 11, 5], [2, 8, 5], [3, 3], [4, 9, 9]]
    found = []
    for tokens in (1, 10_000):
        monkeypatch.setattr("corewrite.rewriter.generate._PREFILL_TOKENS", {"cpu": 1, "cuda": tokens})
        found.append(sample(start, prompts, 8, keys=[1, 2, 3, 4], seed=0, phase=0, max_new_tokens=6))
    assert [[c.token_ids for c in row] for row in found[0]] == [[c.token_ids for c in row] for row in found[1]]


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
