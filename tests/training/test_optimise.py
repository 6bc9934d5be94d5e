"""Micro-batches of any size add up to one batch, and the sampler refuses to be stale."""

import pytest
import torch

from corewrite.training import Candidate, InProcessSampler, RewardShift, TrainingConfig
from corewrite.training.optimise import new_optimizer, optimise, prompted, reference_log_probs
from corewrite.training.pairs import Pair


def pairs_of(policy, instances):
    found = []
    for x in instances[:12]:
        chosen = Candidate("c", tuple(policy.template.encode_target(f"{x.query.text} show")), 0.5)
        rejected = Candidate("r", tuple(policy.template.encode_target("show")), -0.5)
        found += prompted(policy, x.query, x.instance_id, [Pair(chosen, rejected)])
    return found


def test_accumulation_equals_one_batch(start, instances):
    """Padded tokens of a micro-batch bound memory, they must not change the step."""
    results = []
    for budget in (64, 100_000):
        policy = start.copy()
        config = TrainingConfig(pairs_per_step=12, tokens_per_micro_batch=budget, learning_rate=1e-3, clip=1e9)
        pairs = pairs_of(policy, instances)
        reference = reference_log_probs(start, pairs, budget)
        optimizer = torch.optim.SGD(policy.model.parameters(), 1e-3)
        shift, stats = optimise(
            policy, optimizer, pairs, reference, RewardShift(), config, seed=0, phase=0, steps_before=0
        )  # fmt: skip
        assert stats.steps == 1
        results.append((policy, stats, shift))
    (a, stats_a, shift_a), (b, stats_b, shift_b) = results
    assert stats_a.losses == pytest.approx(stats_b.losses, rel=1e-5)
    assert shift_a.total == pytest.approx(shift_b.total, abs=1e-4)
    for (name, left), right in zip(a.model.state_dict().items(), b.model.state_dict().values(), strict=True):
        assert torch.allclose(left, right, atol=1e-6), name


def test_first_step_starts_at_the_reference(start, instances):
    policy = start.copy()
    pairs = pairs_of(policy, instances)
    config = TrainingConfig(pairs_per_step=64)
    reference = reference_log_probs(start, pairs, 8192)
    _, stats = optimise(
        policy, new_optimizer(policy, config), pairs, reference, RewardShift(), config, seed=0, phase=0, steps_before=0
    )  # fmt: skip
    assert stats.rho_chosen == pytest.approx(0, abs=1e-5) and stats.rho_rejected == pytest.approx(0, abs=1e-5)
    assert stats.losses["quality"] == pytest.approx(2 * 0.693147, abs=1e-4)


def test_sampling_needs_the_expected_version(start, instances):
    sampler = InProcessSampler(start)
    with pytest.raises(RuntimeError, match="holds policy none"):
        sampler.sample(instances[:1], 2, expected="x", seed=0, phase=0, max_new_tokens=4)
    version = sampler.sync(start)
    rollouts = sampler.sample(instances[:2], 3, expected=version, seed=0, phase=0, max_new_tokens=4)
    assert rollouts.policy_version == start.policy_hash and [len(r) for r in rollouts.rewrites] == [3, 3]
    with pytest.raises(RuntimeError, match="not other"):
        sampler.sample(instances[:1], 2, expected="other", seed=0, phase=0, max_new_tokens=4)
