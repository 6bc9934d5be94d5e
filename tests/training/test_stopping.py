"""Early stopping: the rule, and that a run stops by it, resumed or not."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.training import TrainingConfig, train
from corewrite.training.stopping import reward_plateaued


@pytest.mark.parametrize(
    ("rewards", "patience", "stops"),
    [
        ([], 2, False),
        ([0.3, 0.2, 0.1], 2, False),
        ([0.1, 0.2, 0.3, 0.4], 2, False),
        ([0.1, 0.4, 0.3, 0.2], 2, True),
        ([0.1, 0.4, 0.3, 0.21], 2, False),
        ([0.0, 0.1, 0.4, 0.3, 0.3], 2, False),
        ([0.0, 0.1, 0.4, 0.3, 0.35, 0.3], 2, True),
        ([0.2, 0.2], 1, True),
        ([0.2, 0.1] * 10, 0, False),
    ],
)
def test_by_hand(rewards, patience, stops):
    assert reward_plateaued(rewards, patience) == stops


@given(st.lists(st.integers(-1_000, 1_000), min_size=2, max_size=20, unique=True), st.integers(1, 5))
def test_what_rises_goes_on_and_what_falls_stops(values, patience):
    rising = sorted(values)
    assert not reward_plateaued(rising, patience)
    assert reward_plateaued(rising[::-1], patience) == (len(values) >= 2 * patience)


def chance(instances, texts):
    """Pays by the text alone, at random: nothing that is learnt from some searches helps others much."""
    return [
        np.array([zlib.crc32(f"{x.instance_id} {t}".encode()) / 2**32 for t in row])
        for x, row in zip(instances, texts, strict=True)
    ]


SETTINGS = TrainingConfig(phases=12, instances_per_phase=8, num_generations=4, learning_rate=1e-6, pairs_per_step=8)


def run(policy, instances, config, folder, **more):
    return train(policy, instances, chance, config, folder, seed=0, provenance={}, **more)


def test_a_run_stops_where_its_reward_no_longer_rises_and_stays_stopped(start, instances, tmp_path):
    policy = start.copy()
    report = run(policy, instances, SETTINGS, tmp_path / "a")
    rewards = [r["mean_sampled_log_reward"] for r in report.records]
    first = next(n for n in range(1, 13) if reward_plateaued(rewards[:n], 2))
    assert report.phases == first == len(rewards) < 12
    # What is stopped is finished: it is not gone on with.
    again = start.copy()
    assert run(again, instances, SETTINGS, tmp_path / "a").phases == first
    assert again.policy_hash == policy.policy_hash

    class KilledError(Exception):
        pass

    def kill(phase, policy):
        if phase == first - 1:
            raise KilledError
        return {}

    killed = start.copy()
    with pytest.raises(KilledError):
        run(killed, instances, SETTINGS, tmp_path / "b", observe=kill)
    resumed = start.copy()
    assert run(resumed, instances, SETTINGS, tmp_path / "b").phases == first
    assert resumed.policy_hash == policy.policy_hash


def test_without_patience_all_phases_are_done(start, instances, tmp_path):
    assert run(start.copy(), instances, SETTINGS.model_copy(update={"patience": 0, "phases": 9}), tmp_path).phases == 9
