"""`corewrite init` and `corewrite doctor`: settings for one's own files, and all that they name looked at."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from corewrite.cli.experiment_settings import ExperimentSections
from corewrite.cli.main import app
from corewrite.cycle.config_sections import CycleSections
from corewrite.domain.config_file import SECTIONS, read_config
from corewrite.fusion import default_spec, load_spec
from corewrite.registry import Registry
from corewrite.serving.settings import ServeSections

LINE = {"query_id": "q", "client_id": "u", "user_query": "a", "timestamp": 1}
INIT = "init --documents docs.parquet --logs logs --labels labels.parquet"
CHECKS = [
    "settings",
    "packages",
    "documents",
    "labels",
    "logs",
    "fusion spec",
    "ranker",
    "model",
    "filters",
    "folders",
    "secrets",
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A team's own files, sound."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"id": ["a"], "title": ["x"]}), "docs.parquet")
    pq.write_table(pa.table({"query": ["a"], "document_id": ["a"], "grade": [1.0]}), "labels.parquet")
    Path("logs").mkdir()
    for week in ("w1", "w2"):
        Path("logs", f"{week}.ndjson").write_text(json.dumps(LINE) + "\n")
    return tmp_path


def call(line, code=0):
    result = CliRunner().invoke(app, line.split(), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def found(code=0):
    """What each check found, by its name."""
    said = json.loads(call("doctor --json", code).stdout)
    assert said["ok"] is (code == 0)
    return {check["name"]: check for check in said["checks"]}


def settings(more="", **changed):
    """Write the settings, changed here and there."""
    value = {"run": "run", "documents": "docs.parquet", "logs": "logs", "labels": "labels.parquet", **changed}
    Path("corewrite.yaml").write_text(yaml.safe_dump({k: v for k, v in value.items() if v is not None}) + more)


def test_init_writes_settings_that_the_doctor_finds_sound(files):
    result = call(INIT)
    assert load_spec(Path("fusion.yaml")) == default_spec()
    assert "OK       logs         logs: 2 weeks, w1 to w2" in result.stdout
    assert result.stdout.strip().endswith("corewrite train --config corewrite.yaml")
    assert list(found()) == CHECKS and not Path("run").exists()


def test_what_init_wrote_holds_the_paths_and_the_defaults_of_every_section(files):
    call(f"{INIT} --run out/run --frozen apart/f.parquet --model ./lm --spec spec.yaml", 1)
    text = Path("corewrite.yaml").read_text()
    read = read_config(Path("corewrite.yaml"), CycleSections)
    assert (read.run, read.frozen, read.ranker.spec) == (Path("out/run"), Path("apart/f.parquet"), Path("spec.yaml"))
    assert (read.documents, read.logs, read.labels, read.model) == (
        Path("docs.parquet"),
        Path("logs"),
        Path("labels.parquet"),
        "./lm",
    )
    shown = re.findall(r"^#?(\w+):", text, re.M)
    assert set(SECTIONS) - set(shown) == {"sampling", "margins"}, "without a default"
    # Uncommented, every section reads as what it is without the file.
    Path("all.yaml").write_text(re.sub(r"^#(?! \S)", "", text, flags=re.M))
    for kind in (CycleSections, ServeSections, ExperimentSections):
        whole = read_config(Path("all.yaml"), kind)
        given = {"run", "documents", "logs", "labels", "frozen", "model", "ranker"}
        for name in kind.model_fields.keys() - given - {"sampling", "margins", "max_new_tokens"}:
            assert getattr(whole, name) == kind.model_fields[name].get_default(call_default_factory=True), name


@pytest.mark.parametrize("name", ["my docs.parquet", "a: b", "#1", "yes", "1", "é.parquet", "-x", 'a"b\\c'])
def test_init_takes_any_path(files, name):
    CliRunner().invoke(app, ["init", f"--documents={name}", "--logs", "logs", "--labels", "labels.parquet"])
    assert read_config(Path("corewrite.yaml"), CycleSections).documents == Path(name)


def test_init_writes_over_nothing_unless_it_is_told_to(files):
    Path("fusion.yaml").write_text("mine")
    assert "fusion.yaml is there already" in call(INIT, 1).stderr
    assert Path("fusion.yaml").read_text() == "mine" and not Path("corewrite.yaml").exists()
    call(f"{INIT} --force")
    assert load_spec(Path("fusion.yaml")) == default_spec()
    assert "name two files" in call(f"{INIT} --force --spec corewrite.yaml", 1).stderr


def test_init_says_what_is_wrong_with_the_data_and_writes_the_files(files):
    result = call(f"{INIT} --labels docs.parquet --json", 1)
    wrong = [check for check in json.loads(result.stdout)["checks"] if not check["ok"]]
    assert [c["name"] for c in wrong] == ["labels"] and "column 'query' is missing" in wrong[0]["message"]
    assert Path("corewrite.yaml").is_file() and Path("fusion.yaml").is_file()


WRONG = {
    "documents": ({"documents": "nowhere"}, "nowhere: there are no documents"),
    "labels": ({"labels": "docs.parquet"}, "docs.parquet: column 'query' is missing"),
    "logs": ({"logs": "labels.parquet"}, "labels.parquet is no folder"),
    "logs, none": ({"logs": None}, "no log is named"),
    "logs, no log": ({"logs": "broken"}, "w1.parquet"),
    "fusion spec": ({"ranker": {"spec": "nowhere.yaml"}}, "nowhere.yaml"),
    "fusion spec, signal": ({"ranker": {"spec": "own.yaml"}}, "nothing says where the signal 'sales'"),
    "ranker": ({"ranker": {"signals": {"relevance": {"kind": "python", "factory": "no_such:f", "version": "1"}}}}, "no_such"),
    "model": ({"model": "./nowhere"}, "./nowhere is not a folder"),
    "filters": (
        {"rewriter": {"filters": [{"kind": "terms", "file": "no.txt"}]}},
        "no.txt: cannot read the terms: No such file",
    ),
    "folders": ({"run": "docs.parquet/run"}, "docs.parquet is a file"),
    "folders, keys": ({"privacy": {"keys": "nowhere"}}, "nowhere holds no private key"),
    "secrets": (
        {"serve": {"api_key_env": "NO_SUCH"}},
        "the environment variable NO_SUCH",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_problem_is_found_by_its_own_check(files, case):
    changed, message = WRONG[case]
    Path("broken").mkdir()
    Path("broken/w1.parquet").write_text("no Parquet")
    Path("broken/w2.ndjson").write_text(json.dumps(LINE) + "\n")
    own = default_spec().model_dump(mode="json")
    own["finerank"]["original"][1]["signal"] = "sales"
    Path("own.yaml").write_text(yaml.safe_dump(own))
    settings(**changed)
    wrong = {name: check["message"] for name, check in found(1).items() if not check["ok"]}
    assert list(wrong) == [case.partition(",")[0]] and message in wrong[case.partition(",")[0]]
    line = next(line for line in call("doctor", 1).stdout.splitlines() if line.startswith("PROBLEM"))
    assert message in line


def test_settings_that_cannot_be_read_are_all_that_is_said(files):
    assert "corewrite.yaml" in found(1)["settings"]["message"]
    settings("seeed: 1\nserve: {portt: 1}\n")
    said = found(1)
    assert list(said) == ["settings"]
    assert "did you mean 'seed'" in said["settings"]["message"]
    settings("serve: {portt: 1}\nexperiment: {alfa: 1}\n", frozen="f.parquet", recovery={"x": 1})
    message = found(1)["settings"]["message"]
    assert all(word in message for word in ("portt", "alfa", "recovery"))


def test_packages_are_those_that_the_settings_need(files, monkeypatch):
    Registry(files / "run" / "registry")
    settings(
        "serve: {port: 8080}\n",
        ranker={"recall": {"kind": "opensearch", "url": "http://localhost:1", "index": "i"}},
        sampling={"url": "http://localhost:1", "model_folder": "lm"},
        training={"lora": {"rank": 4}},
    )
    assert found()["packages"]["message"] == "corewrite[train,report,opensearch,lora,server,serve]"
    monkeypatch.setattr("corewrite.domain.extras.find_spec", lambda name: None if name in ("peft", "sklearn") else name)
    assert "not installed: sklearn, peft: pip install 'corewrite[train,lora]'" in found(1)["packages"]["message"]


def test_a_ranker_of_ones_own_is_tried_on_the_documents(files, monkeypatch):
    Path("doctors_ranker.py").write_text(
        "import numpy as np\n\ndef make():\n    return lambda inputs: np.full(len(inputs['text']), VALUE)\n"
    )
    monkeypatch.syspath_prepend(str(files))
    import doctors_ranker

    own = {"kind": "python", "factory": "doctors_ranker:make", "version": "1", "inputs": {"text": "text"}}
    settings(ranker={"signals": {"relevance": own}})
    doctors_ranker.VALUE = 0.5
    assert found()["ranker"]["message"] == "relevance python; recall embedded"
    doctors_ranker.VALUE = 3.0
    assert "3" in found(1)["ranker"]["message"]
