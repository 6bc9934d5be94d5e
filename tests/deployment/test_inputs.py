"""What is wrong with the inputs of a long command is said before it begins."""

import json
import os
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.deployment import inputs
from corewrite.deployment.inputs import InputError, check_inputs, training_room
from corewrite.fusion import default_spec
from corewrite.rewriter import new_small_decoder

LINE = {"query_id": "q", "client_id": "u", "user_query": "a", "timestamp": 1}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Everything that is needed, sound."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"id": ["a"], "title": ["x"]}), "docs.parquet")
    pq.write_table(pa.table({"query": ["a"], "document_id": ["a"], "grade": [1.0]}), "labels.parquet")
    Path("fusion.yaml").write_text(default_spec().model_dump_json())
    Path("logs").mkdir()
    for week in ("w1", "w2"):
        Path("logs", f"{week}.ndjson").write_text(json.dumps(LINE) + "\n")
    Path("lm").mkdir()
    return tmp_path


def sound(**others):
    return {
        "documents": Path("docs.parquet"), "labels": Path("labels.parquet"), "logs": sorted(Path("logs").iterdir()),
        "spec": Path("fusion.yaml"), "writes": [Path("run")], "room": 1, **others,
    }  # fmt: skip


def test_sound_inputs_pass(files):
    new_small_decoder(["lion king"], seed=0).save(Path("lm"))
    check_inputs(**sound(model="./lm"))
    check_inputs()


BAD = {
    "documents": ({"documents": Path("nowhere.parquet")}, "nowhere.parquet: there are no documents"),
    "documents of another kind": ({"documents": Path("labels.parquet")}, "labels.parquet: column 'id' is missing"),
    "labels": ({"labels": Path("docs.parquet")}, "docs.parquet: column 'query' is missing"),
    "no labels": ({"labels": Path("nowhere.parquet")}, "labels: nowhere.parquet: there is no such file"),
    "log": ({"logs": [Path("logs/w9.ndjson")]}, "w9.ndjson: cannot read the log"),
    "spec": ({"spec": Path("nowhere.yaml")}, "nowhere.yaml"),
    "keys": ({"keys": Path("nowhere")}, "nowhere holds no private key"),
    "public key": ({"public_key": Path("docs.parquet")}, "docs.parquet is no key"),
    "model": ({"model": "./nowhere"}, "./nowhere is not a folder"),
    "a model that is none": ({"model": "./lm"}, r"lm holds no \*\.safetensors file"),
    "run folder": ({"writes": [Path("docs.parquet/run")]}, "docs.parquet is a file"),
    "room": ({"room": 2**60}, r"run: at least some 1073741824\.0 GiB are written here, and .* are free"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_input_is_named_with_the_reason(files, case):
    changed, message = BAD[case]
    with pytest.raises(InputError, match=message):
        check_inputs(**sound(**changed))


def test_all_are_named_together(files):
    with pytest.raises(InputError) as error:
        check_inputs(**sound(documents=Path("d"), labels=Path("l"), model="./m"))
    assert [line[:9] for line in str(error.value).splitlines()] == ["documents", "labels: l", "model: ./"]


def test_a_model_of_another_kind_is_no_causal_lm(files):
    Path("lm/config.json").write_text(json.dumps({"model_type": "vit"}))
    Path("lm/model.safetensors").touch()
    with pytest.raises(InputError, match="lm is a vit, which is no causal LM"):
        check_inputs(model="./lm")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(files):
    Path("run").mkdir(mode=0o500)
    with pytest.raises(InputError, match="may not be written to"):
        check_inputs(writes=[Path("run/week")])


def test_the_room_of_a_training(files):
    new_small_decoder(["lion king"], seed=0).save(Path("lm"))
    documents, logs = Path("docs.parquet").stat().st_size, [Path("logs/w1.ndjson")]
    weights = sum(f.stat().st_size for f in Path("lm").glob("*.safetensors"))
    small = training_room(Path("docs.parquet"), logs, "./lm", converted=False)
    assert small == documents + logs[0].stat().st_size // 4 + 7 * weights
    assert training_room(Path("docs.parquet"), logs, "./lm", converted=True) == small + documents
    assert training_room(Path("nowhere"), [Path("nowhere")], None, converted=True) == 7 * 8 * 2**20


SETTINGS = "run: run\ndocuments: docs.parquet\nlogs: logs\nlabels: labels.parquet\nfrozen: apart/frozen.parquet\n"
COMMANDS = {
    "train": ("train -c c.yaml", "model: ./nowhere\n", "./nowhere is not a folder"),
    "train, small disk": ("train -c c.yaml", "", "run: at least some"),
    "cycle run": ("cycle run -c c.yaml", "model: ./nowhere\n", "./nowhere is not a folder"),
    "cycle run, labels": ("cycle run -c c.yaml", "seed: 1\n", "labels.parquet: column 'grade' is missing"),
    "demo": ("demo --miniature --model ./nowhere --out out", "", "./nowhere is not a folder"),
    "gate run": ("gate run 0123456789 -c c.yaml", "", "no champion"),
    "gate run, out": ("gate run 0123456789 -c c.yaml --out docs.parquet/gate", "", "docs.parquet is a file"),
    "gate calibrate": ("gate calibrate -c c.yaml --out docs.parquet/m.yaml", "", "docs.parquet is a file"),
    "serve": (
        "serve -c c.yaml",
        "serve: {port: 0, log: {folder: docs.parquet/log, insecure: true}}\n",
        "docs.parquet is a file",
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_says_it_before_it_opens_the_documents(files, monkeypatch, case):
    args, more, message = COMMANDS[case]
    Path("c.yaml").write_text(SETTINGS + more)
    if "labels" in case:
        pq.write_table(pa.table({"query": ["a"], "document_id": ["a"]}), "labels.parquet")
    if "disk" in case:
        monkeypatch.setattr(inputs.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    if case == "serve":
        Path("run/registry").mkdir(parents=True)

    def opened(*args, **options):
        raise AssertionError("work was begun")

    for name in ("serving.service", "deployment.explain", "cycle.steps.rollout"):
        import_module(f"corewrite.{name}")  # imported first under the patch of its source, a module would keep it
    monkeypatch.setattr("corewrite.studies.quickstart.run.make_world", opened)
    for name in ("cycle.own_logs", "cycle.finished_week", "cycle.begin", "deployment.documents"):
        monkeypatch.setattr(f"corewrite.{name}.open_documents", opened)
    result = CliRunner().invoke(app, args.split())
    assert result.exit_code == 1 and message in result.output, result.output
