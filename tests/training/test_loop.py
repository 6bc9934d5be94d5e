"""The phase loop: learns, records, refuses. Resuming is in test_resume.py."""

import json
import os
import socket
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.multiprocessing as mp

from corewrite.domain import Context, Query
from corewrite.rewriter import PromptTemplate, Rewriter, TemplateConfig, greedy, weights_checksum
from corewrite.training import (
    InProcessEngine,
    PhaseRecord,
    ResumeError,
    SamplerMismatchError,
    SamplerPrecisionWarning,
    ScoringConfig,
    StalePolicyError,
    TrainingConfig,
    TransientRewardError,
    parallel,
    rollouts,
    train,
)
from corewrite.training.samplers import in_process

CONFIG = TrainingConfig(
    phases=3, instances_per_phase=16, num_generations=8, k=2, learning_rate=2e-3, pairs_per_step=8, max_new_tokens=6,
    sampler_precision="float32",
)  # fmt: skip


def run(policy, instances, reward, folder, config=CONFIG, **kwargs):
    return train(policy, instances, reward, config, folder, seed=3, provenance={"data": "toy"}, **kwargs)


def mean_reward(policy, instances, reward):
    texts = [[r.text or x.query.text] for x, r in zip(instances, greedy(policy, [x.query for x in instances]), strict=True)]
    return float(np.mean([row[0] for row in reward(instances, texts)]))


def test_training_raises_the_reward_and_records_every_phase(taught, instances, toy_reward, tmp_path):
    policy = taught.copy()
    more = {"phases": 16, "patience": 0, "num_generations": 16, "instances_per_phase": 24, "learning_rate": 3e-3}
    config = CONFIG.model_copy(update=more)
    report = run(policy, instances, toy_reward, tmp_path, config)
    assert mean_reward(policy, instances, toy_reward) > mean_reward(taught, instances, toy_reward) + 0.15
    assert (report.phases, report.syncs, report.rollouts) == (16, 16, 16 * 24 * 16)
    assert report.pairs == sum(r["pairs"] for r in report.records) > 0
    versions = [r["policy_version"] for r in report.records]
    assert versions[0] == taught.policy_hash and len(set(versions)) == 16, "one sync a phase, each of new weights"
    first = report.records[0]
    assert first["gradient_norms"].keys() == {"preference", "quality", "generation"}
    assert all(norm > 0 for norm in first["gradient_norms"].values())
    # The reference is where training starts: in the first step rho is 0, so L_p starts at ln 2 and can only be near it.
    assert first["losses"]["preference"] == pytest.approx(np.log(2), abs=0.15)
    assert first["log_prob_mismatch"] < 1e-4
    assert first["sync_bytes"] == 4 * taught.parameters
    assert first.keys() == PhaseRecord.__annotations__.keys() - {"score_busy_seconds"}, "what a record holds is documented"


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
    assert sum(row["samples"] for row in table) == report.records[0]["rollouts"] == 16 * 8
    mean = np.average([row["log_reward"] for row in table], weights=[row["samples"] for row in table])
    assert report.records[0]["mean_sampled_log_reward"] == pytest.approx(mean)


def test_equal_prompts_are_sampled_once_and_share_their_samples(start, instances, toy_reward, tmp_path):
    asked = []

    class Counting(InProcessEngine):
        def sample(self, prompts, n, **kwargs):
            asked.append([tuple(p) for p in prompts])
            return super().sample(prompts, n, **kwargs)

    config = CONFIG.model_copy(update={"phases": 1, "instances_per_phase": 24})
    run(start.copy(), instances, toy_reward, tmp_path, config, engine=Counting(start, "float32"))
    every = [tuple(start.template.encode(x.query)) for x in instances]
    assert sorted(asked[-1]) == sorted(set(every)) and len(set(every)) < len(every)
    table = pq.read_table(tmp_path / "phases/000/candidates.parquet").to_pylist()
    by_prompt: dict = {}
    for x, prompt in zip(instances, every, strict=True):
        texts = {(r["text"], r["samples"]) for r in table if r["instance_id"] == x.instance_id}
        assert by_prompt.setdefault(prompt, texts) == texts


def test_instances_that_come_again_cost_their_new_rewrites_only(start, instances, toy_reward, tmp_path):
    """Six phases of 16 out of 24 instances: a rewrite scored before is not scored again, and has its score."""
    asked = []

    def counting(xs, texts):
        asked.extend((x.instance_id, t) for x, row in zip(xs, texts, strict=True) for t in row)
        return toy_reward(xs, texts)

    run(start.copy(), instances, counting, tmp_path, CONFIG.model_copy(update={"phases": 6, "patience": 0}))
    assert len(asked) == len(set(asked))
    rows = [r for p in range(6) for r in pq.read_table(tmp_path / f"phases/{p:03d}/candidates.parquet").to_pylist()]
    assert len(rows) > len(asked)


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


def test_a_lost_instance_is_written_down_and_left_out(start, instances, toy_reward, tmp_path):
    def partly(xs, texts):
        if any(x.instance_id == "q3" for x in xs):
            raise TransientRewardError("the model server is away")
        return toy_reward(xs, texts)

    config = CONFIG.model_copy(
        update={"phases": 1, "instances_per_phase": 24, "scoring": ScoringConfig(batch=1, retries=0)}
    )  # fmt: skip
    (record,) = run(start.copy(), instances, partly, tmp_path, config).records
    assert record["instances_lost"] == {"q3": "TransientRewardError: the model server is away"}
    table = pq.read_table(tmp_path / "phases/000/candidates.parquet").to_pylist()
    assert {r["instance_id"] for r in table} == {x.instance_id for x in instances} - {"q3"}


def test_all_lost_is_an_error_with_the_reason(start, instances, tmp_path):
    def away(xs, texts):
        raise ConnectionError("refused")

    with pytest.raises(ValueError, match=r"16 of 16 instances were not scored.*ConnectionError: refused"):
        run(start.copy(), instances, away, tmp_path, CONFIG.model_copy(update={"scoring": ScoringConfig(retries=0)}))


def test_without_the_identity_no_pair_holds_it(taught, instances, toy_reward, tmp_path):
    config = CONFIG.model_copy(update={"identity": False, "minimum_gap": 0.0})
    for record in run(taught.copy(), instances, toy_reward, tmp_path, config).records:
        assert record["pair_roles"].keys() == {"between_samples"}


def test_an_engine_that_samples_from_something_else_is_noticed(start, instances, toy_reward, tmp_path):
    class Tempered(InProcessEngine):
        """A server left at temperature 0.9."""

        def sync(self, policy):
            found = super().sync(policy)
            for p in self._own.model.get_output_embeddings().parameters():
                p.data /= 0.9
            return found

    with pytest.raises(SamplerMismatchError, match=r"phase 0.*temperature"):
        run(start.copy(), instances, toy_reward, tmp_path, engine=Tempered(start, "float32"))


def test_sampling_from_a_stale_or_half_loaded_policy_is_an_error(start, taught):
    engine = InProcessEngine(start, "float32")
    prompts = [start.template.encode(q) for q in ()] or [[2, 5]]

    def draw(version):
        return engine.sample(prompts, 2, expected=version, keys=[1], seed=0, phase=0, max_new_tokens=3)

    with pytest.raises(StalePolicyError, match="holds policy none"):
        draw(start.policy_hash)
    sync = engine.sync(start)
    version = sync.version
    assert version == weights_checksum(start.trained_state()) and sync.policy_hash == start.policy_hash
    assert len(draw(version)[0]) == 2
    with pytest.raises(StalePolicyError, match=f"holds policy {version}, not {taught.policy_hash}"):
        draw(taught.policy_hash)
    broken = start.copy()
    next(broken.model.parameters()).data[0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="differ from the policy's after a sync"):
        engine.sync(broken)
    with pytest.raises(StalePolicyError, match="holds policy none"):
        draw(version)


def test_the_sampler_keeps_its_weights_while_the_policy_moves(start):
    engine, policy = InProcessEngine(start, "float32"), start.copy()
    version = engine.sync(policy).version
    before = engine.sample([[2, 5]], 8, expected=version, keys=[1], seed=0, phase=0, max_new_tokens=5)
    for p in policy.model.parameters():
        p.data += 0.1
    assert engine.sample([[2, 5]], 8, expected=version, keys=[1], seed=0, phase=0, max_new_tokens=5) == before


def test_bfloat16_sampling_stays_within_its_limit(taught, instances, toy_reward, tmp_path):
    config = CONFIG.model_copy(update={"sampler_precision": "bfloat16", "precision": "bfloat16"})
    records = run(taught.copy(), instances, toy_reward, tmp_path, config).records
    assert all(1e-4 < r["log_prob_mismatch"] < 0.25 for r in records)


def test_weights_that_bfloat16_rounds_too_far_are_sampled_in_float32(taught, instances, toy_reward, tmp_path, monkeypatch):
    exact, auto = taught.copy(), taught.copy()
    run(exact, instances, toy_reward, tmp_path / "exact")
    monkeypatch.setattr("corewrite.training.samplers.in_process.multiplies_bfloat16", lambda device: True)
    monkeypatch.setitem(in_process._MISMATCH_LIMITS, torch.bfloat16, 1e-3)
    with pytest.warns(SamplerPrecisionWarning, match="phase 1 is sampled in float32: in bfloat16 .* nats a token, more than"):
        config = CONFIG.model_copy(update={"sampler_precision": "auto"})
        records = run(auto, instances, toy_reward, tmp_path / "auto", config).records
    assert all(r["log_prob_mismatch"] < 1e-4 for r in records)
    assert auto.policy_hash == exact.policy_hash
    with pytest.raises(SamplerMismatchError, match="phase 0"):  # what was asked for is not changed
        run(taught.copy(), instances, toy_reward, tmp_path / "b", CONFIG.model_copy(update={"sampler_precision": "bfloat16"}))


def test_overlapping_phases_sample_from_the_phase_before(start, instances, toy_reward, tmp_path):
    plain, overlapped = start.copy(), start.copy()
    a = run(plain, instances, toy_reward, tmp_path / "a")
    b = run(overlapped, instances, toy_reward, tmp_path / "b", CONFIG.model_copy(update={"overlap": True}))
    versions = [r["policy_version"] for r in b.records]
    # Phase 1 is sampled while phase 0 learns, so from the weights that phase 0 began with; from then on one phase behind.
    assert versions[0] == versions[1] == start.policy_hash == a.records[0]["policy_version"]
    assert len(set(versions)) == 2 and b.syncs == 3
    again = start.copy()
    run(again, instances, toy_reward, tmp_path / "c", CONFIG.model_copy(update={"overlap": True}))
    assert again.policy_hash == overlapped.policy_hash != plain.policy_hash


def test_overlapping_phases_count_their_own_cut_prompts(start, instances, toy_reward, tmp_path, monkeypatch):
    """However slowly the next phase's prompts are built: this phase's are not counted with them."""
    title = "cat dog fish bird song race news game " * 4
    many = [replace(x, query=Query(x.query.text, Context(("a",), (title,) * 9))) for x in instances]

    def slowly(policy, batch):
        time.sleep(0.3)
        return build_prompts(policy, batch)

    build_prompts = rollouts.build_prompts
    monkeypatch.setattr(rollouts, "build_prompts", slowly)
    template = PromptTemplate(start.tokenizer, TemplateConfig(max_tokens=60, titles=9))
    policy = Rewriter(start.copy().model, start.tokenizer, template)
    report = run(policy, many, toy_reward, tmp_path, CONFIG.model_copy(update={"overlap": True, "minimum_gap": 0.0}))
    assert [r["prompts_truncated"] for r in report.records] == [16] * 3


def test_phases_that_overlap_in_several_processes_are_refused(start, instances, toy_reward, tmp_path, monkeypatch):
    """Two threads of a process would send to the others at once, in any order."""
    monkeypatch.setattr(parallel, "world", lambda: 2)
    with pytest.raises(ValueError, match="cannot overlap in several processes"):
        run(start.copy(), instances, toy_reward, tmp_path, CONFIG.model_copy(update={"overlap": True}))


def test_two_instances_of_one_id_are_refused(start, instances, toy_reward, tmp_path):
    with pytest.raises(ValueError, match="2 instances are called 'q3'"):
        run(start.copy(), [*instances, replace(instances[5], instance_id="q3")], toy_reward, tmp_path)


def test_a_query_that_no_prompt_holds_is_written_down_and_left_out(start, instances, toy_reward, tmp_path):
    pasted = [replace(x, query=Query("x1 " * 60)) if x.instance_id == "q3" else x for x in instances]
    config = CONFIG.model_copy(update={"phases": 1, "instances_per_phase": 24})
    (record,) = run(start.copy(), pasted, toy_reward, tmp_path / "one", config).records
    assert record["instances_lost"] == {"q3": "query of 182 tokens is over the prompt's limit of 96"}
    assert record["instances"] == 24 and record["rollouts"] == 8 * 23
    with pytest.raises(ValueError, match=r"phase 0: 16 of 16 instances were not scored.*over the prompt's limit"):
        run(start.copy(), [replace(x, query=pasted[3].query) for x in instances], toy_reward, tmp_path / "all")


def one_of_two(number, port, policy, instances, reward, folder, out):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=number, world_size=2)
    twin = policy.copy()
    report = run(twin, instances, reward if number == 0 else None, folder / str(number))
    out[number] = (twin.trained_state(), [r["pairs"] for r in report.records], report.rollouts)
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason="forks, which a GPU's context does not survive")
def test_two_processes_train_as_one_does(start, instances, toy_reward, tmp_path):
    """They share out prompts and micro-batches; the first one scores and writes, to a disk that the other does not see."""
    start.paths  # noqa: B018  # probed before the fork
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with mp.get_context("fork").Manager() as manager:
        out = manager.dict()
        arguments = (port, start, instances, toy_reward, tmp_path / "two", out)
        mp.start_processes(one_of_two, arguments, nprocs=2, start_method="fork")
        (first, *told), (second, *also_told) = out[0], out[1]
    alone = start.copy()
    report = run(alone, instances, toy_reward, tmp_path / "one")
    assert told == also_told == [[r["pairs"] for r in report.records], report.rollouts]
    moved = max(
        float((p - q).abs().max()) for p, q in zip(alone.trained_state().values(), start.trained_state().values(), strict=True)
    )
    for name, p in alone.trained_state().items():
        assert torch.equal(first[name], second[name])
        assert float((first[name] - p).abs().max()) < 0.02 * moved, name


def test_an_instance_of_the_gates_is_refused(start, instances, toy_reward, tmp_path):
    kept = [*instances[:-1], replace(instances[-1], evaluation_only=True)]
    with pytest.raises(ValueError, match="'q23' is kept for the gate"):
        run(start.copy(), kept, toy_reward, tmp_path)
    assert not list(tmp_path.iterdir())
