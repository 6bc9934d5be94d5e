"""The phase loop: learns, records, resumes, refuses."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from corewrite.rewriter import greedy
from corewrite.training import ResumeError, TrainingConfig, train

CONFIG = TrainingConfig(
    phases=3, instances_per_phase=16, samples=8, k=2, learning_rate=2e-3, pairs_per_step=8, max_new_tokens=6
)


def run(policy, instances, reward, folder, config=CONFIG, **kwargs):
    return train(policy, instances, reward, config, folder, seed=3, provenance={"data": "toy"}, **kwargs)


def mean_reward(policy, instances, reward):
    texts = [[r.text or x.query.text] for x, r in zip(instances, greedy(policy, [x.query for x in instances]), strict=True)]
    return float(np.mean([row[0] for row in reward(instances, texts)]))


def test_training_raises_the_reward_and_records_every_phase(start, instances, toy_reward, tmp_path):
    policy = start.copy()
    report = run(policy, instances, toy_reward, tmp_path, TrainingConfig(**{**CONFIG.model_dump(), "phases": 8}))
    assert mean_reward(policy, instances, toy_reward) > mean_reward(start, instances, toy_reward) + 0.1
    assert (report.phases, report.syncs, report.rollouts) == (8, 8, 8 * 16 * 8)
    assert report.pairs == sum(r["pairs"] for r in report.records) > 0
    versions = [r["policy_version"] for r in report.records]
    assert versions[0] == start.policy_hash and len(set(versions)) == 8, "one sync a phase, each of new weights"
    first = report.records[0]
    assert first["gradient_norms"].keys() == {"preference", "quality", "generation"}
    assert all(norm > 0 for norm in first["gradient_norms"].values())
    # The reference is where training starts: in the first step rho is 0, so L_p starts at ln 2 and can only be near it.
    assert first["losses"]["preference"] == pytest.approx(np.log(2), abs=0.15)


def test_the_record_on_disk_holds_every_scored_candidate(start, instances, toy_reward, tmp_path):
    report = run(start.copy(), instances, toy_reward, tmp_path)
    table = pq.read_table(tmp_path / "phases/000/candidates.parquet").to_pylist()
    assert len(table) == report.records[0]["distinct_candidates"]
    by_id = {x.instance_id: x for x in instances}
    for row in table:
        x = by_id[row["instance_id"]]
        expected = toy_reward([x], [[row["text"] or x.query.text]])[0][0]
        assert row["log_reward"] == expected
        assert row["identity"] == (row["text"] == x.query.text)


def test_a_killed_run_continues_to_the_same_weights(start, instances, toy_reward, tmp_path):
    undisturbed = start.copy()
    run(undisturbed, instances, toy_reward, tmp_path / "a")

    class Killed(BaseException):
        pass

    def kill(phase, policy):
        if phase == 1:
            raise Killed

        return {}

    with pytest.raises(Killed):
        run(start.copy(), instances, toy_reward, tmp_path / "b", observe=kill)
    assert [f.name for f in (tmp_path / "b/phases").iterdir()] == ["000"], "no half phase is visible"
    (tmp_path / "b/phases/.001").mkdir()  # what a kill while writing leaves
    resumed = start.copy()
    report = run(resumed, instances, toy_reward, tmp_path / "b")
    assert report.phases == 3
    assert resumed.policy_hash == undisturbed.policy_hash


def test_refreshed_reference_is_resumed_too(start, instances, toy_reward, tmp_path):
    config = TrainingConfig(**{**CONFIG.model_dump(), "refresh_reference": True})
    whole, parts = start.copy(), start.copy()
    run(whole, instances, toy_reward, tmp_path / "a", config)

    def kill(phase, policy):
        if phase == 1:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        run(start.copy(), instances, toy_reward, tmp_path / "b", config, observe=kill)
    run(parts, instances, toy_reward, tmp_path / "b", config)
    assert parts.policy_hash == whole.policy_hash


def test_another_run_in_the_same_folder_is_refused(start, instances, toy_reward, tmp_path):
    run(start.copy(), instances, toy_reward, tmp_path)
    with pytest.raises(ResumeError, match="config"):
        run(start.copy(), instances, toy_reward, tmp_path, CONFIG.model_copy(update={"beta": 0.7}))
    with pytest.raises(ResumeError, match="instances"):
        run(start.copy(), instances[:-1], toy_reward, tmp_path)


def test_a_reward_that_is_not_a_number_names_the_instance(start, instances, tmp_path):
    def broken(xs, texts):
        return [np.full(len(row), np.nan if x.instance_id == "q5" else 0.0) for x, row in zip(xs, texts, strict=True)]

    with pytest.raises(ValueError, match="'q5'"):
        run(start.copy(), instances, broken, tmp_path, CONFIG.model_copy(update={"instances_per_phase": 24}))


def test_no_pair_and_no_instance_are_errors_that_say_what_to_do(start, instances, tmp_path):
    def flat(xs, texts):
        return [np.zeros(len(row)) for row in texts]

    with pytest.raises(ValueError, match="minimum_gap"):
        run(start.copy(), instances, flat, tmp_path)
    with pytest.raises(ValueError, match="needs instances"):
        run(start.copy(), [], flat, tmp_path)


def test_settings_and_hashes_are_written_down(start, instances, toy_reward, tmp_path):
    run(start.copy(), instances, toy_reward, tmp_path)
    identity = json.loads((tmp_path / "run.json").read_text())
    assert identity["provenance"] == {"data": "toy"} and identity["start"] == start.policy_hash
