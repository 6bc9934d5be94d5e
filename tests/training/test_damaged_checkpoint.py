"""The folder of a training that somebody changed: one error that names the file, whatever stands in it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from corewrite.capacity.profile import read_run
from corewrite.capacity.rates import PlanError
from corewrite.training import TrainingConfig, train
from corewrite.training.checkpoint import RunFolder
from corewrite.training.errors import ResumeError
from corewrite.training.optimise import new_optimizer
from corewrite.training.trained_state import unpack_state

CONFIG = TrainingConfig(
    phases=1, instances_per_phase=24, num_generations=4, k=1, max_new_tokens=8, pairs_per_step=8, minimum_gap=0.05
)


@pytest.fixture(scope="module")
def finished(start, instances, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    rewards = lambda xs, texts: [[float(len(t) % 5) for t in row] for row in texts]  # noqa: E731
    train(start.copy(), instances, rewards, CONFIG, folder, seed=1, provenance={"data": "toy"})
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy, to be damaged."""
    for file in (f for f in finished.rglob("*") if f.is_file()):
        copy = tmp_path / file.relative_to(finished)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return tmp_path


def opened(folder):
    found = json.loads((folder / "run.json").read_text())
    del found["environment"]
    return RunFolder(folder, found)


def changed(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def rewritten(folder, tensors=None, **about):
    """The checkpoint with other metadata or tensors."""
    file = folder / "state.safetensors"
    with safe_open(file, "pt") as now:
        found = json.loads(now.metadata()["corewrite"])
    save_file(tensors or load_file(file), file, {"corewrite": json.dumps(found | about)})


def test_what_was_written_is_read(run, start):
    folder = opened(run)
    assert folder.threads == torch.get_num_threads() and folder.records()[0]["optimizer_steps"] > 0 and folder.scored(0)
    policy = start.copy()
    unpack_state(folder.state().tensors, policy, new_optimizer(policy, CONFIG), policy.copy())


@pytest.mark.parametrize(
    "values", [{"environment": 5}, {"environment": {"threads": 2}}, {"provenance": ["a"]}, {"provenance": "code_version"}]
)  # fmt: skip
def test_the_identity(run, values):
    known = json.loads((run / "run.json").read_text())
    changed(run / "run.json", **values)
    with pytest.raises(ResumeError, match=r"run\.json is damaged"):
        RunFolder(run, known)


@pytest.mark.parametrize("threads", ["0", "two", "-1", "9" * 5_000, "٣"])
def test_threads(run, threads):
    known = json.loads((run / "run.json").read_text())
    changed(run / "run.json", environment=known.pop("environment") | {"threads": threads})
    with pytest.raises(ResumeError, match=r"run\.json is damaged \(threads"):
        _ = RunFolder(run, known).threads


@pytest.mark.parametrize(
    "values", [{"optimizer_steps": "3"}, {"pairs": -1}, {"instances_lost": 5}, {"rollouts": 1.5}, {"seconds": {"score": "a"}}]
)  # fmt: skip
def test_a_record(run, values):
    changed(run / "phases" / "000" / "record.json", **values)
    with pytest.raises(ResumeError, match=rf"record\.json is damaged \({next(iter(values))}"):
        opened(run).records()


@pytest.mark.parametrize(
    "about",
    [
        {"phase": "1"}, {"phase": -1}, {"environment": 5}, {"cursor": None}, {"cursor": {"step": 1}},
        {"cursor": {"step": 1, "shift": 5, "sums": {}, "gradient_norms": {}, "clipped": 0}},
        {"cursor": {"step": 1, "shift": {"total": "a", "count": 0}, "sums": {}, "gradient_norms": {}, "clipped": 0}},
    ],
)  # fmt: skip
def test_the_place_in_a_checkpoint(run, about):
    rewritten(run, **about)
    with pytest.raises(ResumeError, match=r"state\.safetensors is damaged"):
        opened(run).state()


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 40, b"\x02\x00\x00\x00\x00\x00\x00\x00{}", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"]
)
def test_a_checkpoint_that_is_none(run, content):
    folder = opened(run)
    (run / "state.safetensors").write_bytes(content)
    with pytest.raises(ResumeError, match=r"state\.safetensors is damaged"):
        folder.state()
    with pytest.raises(PlanError, match=r"state\.safetensors is damaged"):
        read_run(run)


@pytest.mark.parametrize(
    "name, tensor",
    [
        ("other.weight", torch.zeros(2)), ("policy", torch.zeros(2)), ("policy.unknown", torch.zeros(2)),
        ("optimizer.0", torch.zeros(2)), ("optimizer.x.exp_avg", torch.zeros(2)), ("optimizer.999.exp_avg", torch.zeros(2)),
        ("optimizer.0.exp_avg", torch.zeros(3)), ("policy.model.norm.weight", torch.zeros(3)),
    ],
)  # fmt: skip
def test_weights_of_something_else(run, start, name, tensor):
    rewritten(run, {**load_file(run / "state.safetensors"), name: tensor})
    policy = start.copy()
    before = policy.policy_hash
    with pytest.raises(ResumeError, match=r"weights|checkpoint"):
        unpack_state(opened(run).state().tensors, policy, new_optimizer(policy, CONFIG), policy.copy())
    assert policy.policy_hash == before or not name.startswith("policy")


def columns(table, **values):
    for name, value in values.items():
        table = table.set_column(table.column_names.index(name), name, pa.array([value] * len(table)))
    return table


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace_schema_metadata({}), lambda t: t.replace_schema_metadata({"corewrite": "[" * 100_000}),
        lambda t: t.replace_schema_metadata({"corewrite": "[]"}), lambda t: t.drop(["text"]), lambda t: columns(t, token_ids=5),
        lambda t: t.append_column("more", pa.array([1] * len(t))), lambda t: t.drop(["instance_id"]),
    ],
)  # fmt: skip
def test_scored_candidates(run, change):
    file, folder = run / "phases" / "000" / "candidates.parquet", opened(run)
    table = change(pq.read_table(file))
    pq.write_table(table, file)
    with pytest.raises(ResumeError, match=r"candidates\.parquet is damaged"):
        folder.scored(0)
    file.write_bytes(b"PAR1")
    with pytest.raises(ResumeError, match=r"candidates\.parquet is damaged"):
        folder.scored(0)


def test_a_plan_of_a_damaged_run(run):
    assert read_run(run).phases
    changed(run / "phases" / "000" / "record.json", mean_chosen_tokens="five")
    with pytest.raises(PlanError, match="a record is damaged"):
        read_run(run)
    (run / "run.json").write_text("[" * 100_000)
    with pytest.raises(PlanError, match=r"run\.json is damaged"):
        read_run(run)
