"""Scoring beside sampling: the same calls and the same record whatever the timing, and nothing of it in vain."""

import random
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from corewrite.training import InProcessEngine, TrainingConfig, TransientRewardError, train
from corewrite.training.config import ScoringConfig

CONFIG = TrainingConfig(
    phases=2, instances_per_phase=16, num_generations=8, k=2, learning_rate=2e-3, pairs_per_step=8, max_new_tokens=6,
    sampler_precision="float32", scoring=ScoringConfig(batch=24),
)  # fmt: skip


class Waiting:
    """A reward that mostly waits; notes its calls."""

    waits = True

    def __init__(self, reward):
        self.reward, self.calls, self.thread = reward, [], set()

    def __call__(self, instances, texts):
        self.calls.append([(x.instance_id, *row) for x, row in zip(instances, texts, strict=True)])
        self.thread.add(threading.current_thread())
        return self.reward(instances, texts)


def run(policy, instances, reward, folder, **kwargs):
    return train(policy, instances, reward, CONFIG, folder, seed=3, provenance={"data": "toy"}, **kwargs)


def candidates(folder: Path):
    return [pq.read_table(folder / f"phases/{k:03d}/candidates.parquet").to_pylist() for k in range(2)]


def test_the_same_record_and_weights_as_one_after_the_other(start, instances, toy_reward, tmp_path):
    plain, waiting, reward = start.copy(), start.copy(), Waiting(toy_reward)
    one = run(plain, instances, toy_reward, tmp_path / "plain")
    other = run(waiting, instances, reward, tmp_path / "waiting")
    assert candidates(tmp_path / "plain") == candidates(tmp_path / "waiting")
    assert plain.policy_hash == waiting.policy_hash
    assert threading.main_thread() not in reward.thread and len(reward.calls) > 2
    assert one.rollouts == other.rollouts
    for record in other.records:
        assert record["reward_calls"] >= 1 and record["score_busy_seconds"] >= 0


class Shuffling(InProcessEngine):
    """Tells of prompts one by one in a random order, or of none."""

    def __init__(self, policy, seed):
        super().__init__(policy, "float32")
        self.seed = seed

    def sample(self, prompts, n, ready=None, **kwargs):
        found = super().sample(prompts, n, **kwargs)
        if ready is not None and self.seed is not None:
            order = list(range(len(prompts)))
            random.Random(self.seed).shuffle(order)
            for i in order:
                ready([i], [found[i]])
        return found


def test_no_order_of_arrival_changes_a_call(start, instances, toy_reward, tmp_path):
    calls = []
    for seed in (0, 1, None):
        policy, reward = start.copy(), Waiting(toy_reward)
        run(policy, instances, reward, tmp_path / str(seed), engine=Shuffling(policy, seed))
        calls.append(reward.calls)
    assert calls[0] == calls[1] == calls[2] and len(calls[0]) > 2


def test_errors_and_lost_instances_are_what_they_are_otherwise(start, instances, toy_reward, tmp_path):
    def broken(some, texts):
        raise KeyError("no such signal")

    with pytest.raises(KeyError, match="no such signal"):
        run(start.copy(), instances, Waiting(broken), tmp_path / "broken")

    def down_for_one(some, texts):
        if any(x.instance_id == "q3" for x in some):
            raise TransientRewardError("busy")
        return toy_reward(some, texts)

    config = CONFIG.model_copy(update={"scoring": ScoringConfig(batch=1, retries=0), "phases": 1, "instances_per_phase": 24})
    report = train(
        start.copy(), instances, Waiting(down_for_one), config, tmp_path / "lost", seed=3, provenance={}
    )  # fmt: skip
    lost = report.records[0]["instances_lost"]
    assert lost and all("busy" in why for why in lost.values()) and len(lost) < 24
