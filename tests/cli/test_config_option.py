"""One settings file for every command."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.fusion import default_spec, parse_spec

SPEC = default_spec().model_copy(update={"depths": default_spec().depths.model_copy(update={"finerank": 77})})


def call(*args):
    return CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fusion.yaml").write_text(SPEC.model_dump_json())
    Path("logs").mkdir()
    for week in ("w1", "w2", "w3", "w4"):
        line = {"query_id": week, "client_id": "u", "user_query": "a", "timestamp": 1}
        Path("logs", f"{week}.ndjson").write_text(json.dumps(line) + "\n")
    Path("corewrite.yaml").write_text(
        "run: mine\ndocuments: docs.parquet\nlogs: logs\nlabels: labels.parquet\nfrozen: apart/frozen.parquet\nseed: 4\n"
        "model: lm\nranker: {spec: fusion.yaml}\ntraining: {phases: 2}\nmax_new_tokens: 9\nserve: {port: 9000}\n"
        "experiment: {control: none, treatment: all_stages}\n"
    )
    return Path("corewrite.yaml")


@pytest.fixture
def trained(monkeypatch):
    """What `train_on_logs` was called with."""
    seen = SimpleNamespace()

    def train(documents, earlier, window, labels, folder, **rest):
        seen.__dict__.update(rest, documents=documents, earlier=earlier, window=window, labels=labels, folder=folder)
        raise ValueError("far enough")

    monkeypatch.setattr("corewrite.cycle.train_on_logs", train)
    return seen


def test_train_needs_nothing_but_the_file(file, trained):
    assert "far enough" in call("train", "-c", file).output
    assert (trained.documents, trained.labels, trained.folder) == (Path("docs.parquet"), Path("labels.parquet"), Path("mine"))
    assert trained.earlier == [Path("logs/w2.ndjson"), Path("logs/w3.ndjson")] and trained.window == [Path("logs/w4.ndjson")]
    assert (trained.seed, trained.model, trained.spec.spec_hash) == (4, "lm", SPEC.spec_hash)
    assert (trained.config.training.phases, trained.config.max_new_tokens) == (2, 9)


def test_train_s_options_count_before_the_file(file, trained):
    options = "--seed 5 --out other --documents d --labels l --earlier-log e --log w --model n".split()
    call("train", "-c", file, *options)
    assert (trained.seed, trained.folder, trained.documents, trained.labels) == (5, Path("other"), Path("d"), Path("l"))
    assert (trained.earlier, trained.window, trained.model) == ([Path("e")], [Path("w")], "n")


def test_train_without_a_file_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("train", "--documents", "d")
    assert result.exit_code == 1
    for name in ("run", "labels"):
        assert f"{name}: is needed" in result.stderr
    assert "documents: is needed" not in result.stderr


def test_tune_and_compile_take_the_file_s_spec(file):
    found = json.loads(call("fusion", "compile", "-c", file, "--to", "opensearch", "--json").stdout)
    assert found["spec_hash"] == SPEC.spec_hash != default_spec().spec_hash
    Path("other.yaml").write_text(default_spec().model_dump_json())
    found = json.loads(call("fusion", "compile", "other.yaml", "-c", file, "--to", "opensearch", "--json").stdout)
    assert found["spec_hash"] == parse_spec(Path("other.yaml").read_text()).spec_hash


def test_ingest_takes_the_newest_week(file):
    found = json.loads(call("ingest", "-c", file, "--json").stdout)
    assert found["files"] == ["w4.ndjson"] and found["queries"] == 1
    refused = call("ingest")
    assert refused.exit_code == 1 and "logs:" in refused.stderr


COMMANDS = (
    "cycle run", "cycle status", "gate run x", "train", "serve", "search x", "replay logs", "ingest", "experiment read logs",
    "fusion requests --out x", "fusion compile --to vespa", "fusion tune x", "warm --from-log logs",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_a_misspelt_section(file, command):
    with file.open("a") as out:
        out.write("trainning: {phases: 3}\n")
    result = call(*command.split(), "-c", file)
    assert result.exit_code == 1
    assert "corewrite.yaml:13: trainning: unknown name; did you mean 'training'?" in result.stderr


def test_a_file_of_an_earlier_version_is_said_in_words(file):
    file.write_text(file.read_text().replace("training: {phases: 2}", "pipeline: {training: {phases: 2}}"))
    command = [sys.executable, "-c", "from corewrite.cli.main import app; app()", "cycle", "status", "-c", str(file), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0 and json.loads(done.stdout)["weeks"] == []
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: corewrite.yaml is written as for an earlier version")
    assert "line 9: `pipeline.training` is `training` now" in line
