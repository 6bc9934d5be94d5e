"""Live metrics: each phase's record reaches the trackers once, and nothing that a tracker does reaches the training."""

import json
import logging
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corewrite.rewriter import weights_checksum
from corewrite.training import TrainingConfig, tracked, tracker_openers, train
from corewrite.training.tracking import scalars

CONFIG = TrainingConfig(
    phases=3, instances_per_phase=16, num_generations=8, k=2, learning_rate=2e-3, pairs_per_step=8, max_new_tokens=6,
    sampler_precision="float32",
)  # fmt: skip
RECORDS = [
    {"phase": n, "losses": {"total": 1.5 + n}, "pairs": 3 * n, "policy_version": "x", "nan": float("nan")} for n in range(3)
]


class Fake:
    def __init__(self, training=""):
        self.training, self.logged, self.closed = training, [], False

    def log(self, step, metrics):
        self.logged.append((step, dict(metrics)))

    def close(self):
        self.closed = True


def write(folder: Path, *numbers: int) -> None:
    for n in numbers:
        (folder / f"phases/{n:03d}").mkdir(parents=True)
        (folder / f"phases/{n:03d}/record.json").write_text(json.dumps(RECORDS[n]))


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_numbers_are_named_by_their_path_and_what_is_none_is_left_out():
    record = {
        "a": 1,
        "b": {"c": 0.5, "d": {"e": 2}},
        "text": "7",
        "truth": True,
        "none": None,
        "inf": float("inf"),
        "list": [1],
    }
    assert dict(scalars(record)) == {"a": 1.0, "b/c": 0.5, "b/d/e": 2.0}


def test_a_real_training_is_the_same_with_trackers_and_each_record_is_sent(start, instances, toy_reward, tmp_path):
    def run(name, trackers):
        policy = start.copy()
        with tracked(tmp_path / name, trackers, poll_seconds=0.01):
            report = train(policy, instances, toy_reward, CONFIG, tmp_path / name, seed=3, provenance={"data": "toy"})
        return weights_checksum(policy.model.state_dict()), report

    fake = Fake()
    (plain, _), (watched, report) = run("plain", {}), run("watched", {"fake": lambda training: fake})
    assert plain == watched and not (tmp_path / "plain/tracking.json").exists()
    assert [step for step, _ in fake.logged] == [0, 1, 2] and fake.closed
    for (_, metrics), record in zip(fake.logged, report.records, strict=True):
        assert metrics["mean_sampled_log_reward"] == record["mean_sampled_log_reward"]
        assert metrics["losses/total"] == record["losses"]["total"] and metrics["seconds/learn"] == record["seconds"]["learn"]


def test_records_are_sent_while_the_training_runs_and_go_on_where_they_were(tmp_path):
    first, second, late = Fake(), Fake(), Fake()

    def opened(fake):
        def open_tracker(training):
            fake.training = training
            return fake

        return open_tracker

    with tracked(tmp_path, {"a": opened(first)}, poll_seconds=0.01):
        write(tmp_path, 0)
        until(lambda: first.logged)
        assert not first.closed
    write(tmp_path, 1)
    with tracked(tmp_path, {"a": opened(second), "b": opened(late)}, poll_seconds=60):
        write(tmp_path, 2)  # and the last one is sent though nobody looks before the end
    assert [s for s, _ in first.logged] == [0] and first.logged[0][1] == {"phase": 0.0, "losses/total": 1.5, "pairs": 0.0}
    assert [s for s, _ in second.logged] == [1, 2], "each once"
    assert [s for s, _ in late.logged] == [0, 1, 2], "all of a training that began without it"
    assert first.training == second.training == late.training != ""


def warned(caplog):
    """Messages from warnings on; what a client says for its own debugging is its own affair."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("where", ["open", "log", "close"])
def test_a_tracker_that_fails_is_said_once_and_the_others_go_on(tmp_path, caplog, where):
    class Failing(Fake):
        def log(self, step, metrics):
            if where == "log":
                raise ConnectionError("away")

        def close(self):
            if where == "close":
                raise ConnectionError("away")

    def failing(training):
        if where == "open":
            raise ConnectionError("away")
        return Failing()

    good = Fake()
    with (
        caplog.at_level(logging.WARNING),
        tracked(tmp_path, {"bad": failing, "good": lambda training: good}, poll_seconds=0.01),
    ):
        write(tmp_path, 0, 1)
        until(lambda: len(good.logged) == 2)
    said = [r.getMessage() for r in caplog.records]
    assert said == ["tracker bad: ConnectionError: away; the training goes on without it"]
    assert good.closed


def test_a_training_waits_for_no_tracker_that_hangs(tmp_path, caplog):
    release = threading.Event()

    class Hanging(Fake):
        def log(self, step, metrics):
            release.wait()

    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        with tracked(tmp_path, {"a": lambda training: Hanging()}, poll_seconds=0.01, patience_seconds=0.2):
            write(tmp_path, 0)
        assert time.monotonic() - began < 10
    release.set()
    assert "not all was sent within 0.2 s" in caplog.text


def test_what_the_training_raises_is_its_own(tmp_path):
    fake = Fake()
    with pytest.raises(KeyError, match="own"), tracked(tmp_path, {"a": lambda training: fake}, poll_seconds=0.01):
        raise KeyError("own")
    assert fake.closed


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_library_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch, caplog, name):
    for module in ("torch.utils.tensorboard", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, module, None)
    with caplog.at_level(logging.WARNING), tracked(tmp_path, tracker_openers((name,), tmp_path, {})):
        pass
    assert f"pip install 'corewrite[{name}]'" in caplog.text and "goes on without it" in caplog.text


def twice(folder, name):
    """A training of two phases that goes on in another process with the third."""
    openers = tracker_openers((name,), folder, {"window": "w1", "seed": 0})
    with tracked(folder, openers, poll_seconds=0.01):
        write(folder, 0, 1)
    with tracked(folder, openers, poll_seconds=0.01):
        write(folder, 2)


EXPECTED = {"phase": [0.0, 1.0, 2.0], "losses/total": [1.5, 2.5, 3.5], "pairs": [0.0, 3.0, 6.0]}


def test_tensorboard_reads_what_was_written(tmp_path, caplog):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    twice(tmp_path, "tensorboard")
    found = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert {tag: [e.value for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]} == EXPECTED
    assert [e.step for e in found.Scalars("pairs")] == [0, 1, 2] and not warned(caplog)


def test_mlflow_s_file_store_has_one_run_with_every_phase(tmp_path, monkeypatch, caplog):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "rewriter")
    twice(tmp_path / "week/training", "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("rewriter").experiment_id])
    found = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    assert {name: [m.value for m in sorted(values, key=lambda m: m.step)] for name, values in found.items()} == EXPECTED
    assert (run.info.status, run.info.run_name, run.data.tags["window"]) == ("FINISHED", "week", "w1") and not warned(caplog)


def log_entries(data: bytes) -> Iterator[bytes]:
    """Of a file in the format of LevelDB's logs: blocks of 32 KiB, in them checksum, length, kind and content of parts."""
    at, entry = 7, b""  # after the file's own header
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:  # no part begins at the end of a block
            at += 2**15 - at % 2**15
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        entry += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield entry
            entry = b""


def test_wandb_without_a_network_writes_what_it_will_send(tmp_path, monkeypatch, caplog):
    """The real client in its mode `offline`; W&B's service itself is not asked."""
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    twice(tmp_path, "wandb")
    found, runs = {}, set()
    for file in sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"), key=lambda f: f.stat().st_mtime):
        for data in log_entries(file.read_bytes()):
            record = Record.FromString(data)
            if record.HasField("run"):
                runs.add((record.run.project, record.run.run_id))
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                if not name.startswith("_"):
                    found.setdefault(name, []).append(json.loads(item.value_json))
    assert found == EXPECTED and not warned(caplog)
    assert runs == {("corewrite", json.loads((tmp_path / "tracking.json").read_text())["id"])}


def test_wandb_without_a_key_never_asks_at_the_terminal(tmp_path, monkeypatch, caplog):
    class Client:
        @staticmethod
        def login(*, prompt):
            assert prompt is False
            return False

    monkeypatch.setitem(sys.modules, "wandb", Client)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with caplog.at_level(logging.WARNING), tracked(tmp_path, tracker_openers(("wandb",), tmp_path, {})):
        pass
    assert "no key: set WANDB_API_KEY" in caplog.text
