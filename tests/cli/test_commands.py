"""The commands as a user meets them: help, errors that name the fix, exit codes, JSON."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.logs import UbiWriter, read_instances

ESCI = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "ubi" / "esci_ubi_sample.ndjson.gz"


def call(*args):
    return CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)


def test_no_command_shows_help_and_version_prints():
    assert "demo" in CliRunner().invoke(app, []).output
    assert call("--version").stdout.startswith("corewrite ")


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.ndjson"
    with UbiWriter(path) as out:
        for i in range(120):
            user = f"u{i % 60}"
            at = 1_700_000_000.0 + 400 * i
            out.query(
                query_id=f"q{i}", client_id=user, user_query="lion" if i < 60 else "lion king", timestamp=at,
                hit_ids=["a", "b", "c"], attributes={},
            )  # fmt: skip
            for k, document in enumerate(("a", "b")):
                out.event(
                    "click", query_id=f"q{i}", client_id=user, session_id="", timestamp=at + 5 + k,
                    object_id=document, ordinal=k + 1,
                )  # fmt: skip
    return path


def test_ingest_says_what_it_found_and_keeps_the_rest(log, tmp_path):
    result = call("ingest", log, "--out", tmp_path / "out")
    assert result.exit_code == 0 and "120 of 60 clients" in result.stdout
    assert result.stdout.strip().endswith("all 360 lines were used")
    assert pq.read_table(tmp_path / "out" / "searches.parquet").num_rows == 120
    assert isinstance(read_instances(tmp_path / "out" / "instances.parquet"), list)


def test_ingest_rejects_bad_lines_and_says_so_in_exit_code_and_last_line(log, tmp_path):
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], "{broken", *lines[1:], '{"neither": 1}']) + "\n")
    result = call("ingest", log, "--out", tmp_path / "out")
    assert result.exit_code == 5
    assert result.stdout.strip().splitlines()[-1].startswith("2 of 362 lines could not be used")
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.ndjson").read_text().splitlines()]
    assert [(r["line"], r["text"]) for r in rejects] == [(2, "{broken"), (362, '{"neither": 1}')]
    found = json.loads(call("ingest", log, "--json", "--out", tmp_path / "out").stdout)
    assert found["rejected"] == 2 and found["queries"] == 120


@pytest.mark.skipif(not ESCI.is_file(), reason="the UBI sample is not there (../shared/data/ubi)")
def test_ingest_takes_the_published_sample_and_warns_of_its_rates(tmp_path):
    result = call("ingest", ESCI, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "one client holds" in result.stdout


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("ingest", "nowhere.ndjson"), 1, "nowhere.ndjson"),
        (("search", "x", "--run", "nowhere"), 1, "holds no registry"),
        (("registry", "list", "--run", "nowhere"), 1, "holds no registry"),
        (("simulate",), 2, "--out"),
        (("demo", "--seed", "-1"), 2, "seed"),
        ((*"train --documents d --earlier-log l --log l --labels l --out o --spec no.yaml".split(),), 1, "no.yaml"),
    ],
)  # fmt: skip
def test_errors_name_the_value_and_have_a_code(args, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*args)
    assert result.exit_code == code
    assert message in " ".join(result.output.split()) and "Traceback" not in result.output


def _short(path, events):
    with UbiWriter(path) as out:
        for i in range(40):
            at = 1_700_000_000.0 + (1 if events else 400) * i
            out.query(query_id=f"q{i}", client_id=f"u{i}", user_query="lion", timestamp=at, hit_ids=["a", "b"], attributes={})
            if events:
                out.event("click", query_id=f"q{i}", client_id=f"u{i}", session_id="", timestamp=at, object_id="a", ordinal=1)
    return path


@pytest.mark.parametrize(("events", "reason"), [(False, "click, watch, purchase or add_to_cart"), (True, "5 minutes")])
def test_ingest_says_why_outcomes_cannot_be_told(tmp_path, events, reason):
    log = _short(tmp_path / "log.ndjson", events)
    result = call("ingest", log)
    (line,) = [x for x in result.stdout.splitlines() if x.startswith("outcomes")]
    assert "nan" not in result.stdout and reason in line
    found = json.loads(call("ingest", log, "--json").stdout)
    assert set(found["outcomes"].values()) == {None} and len(found["outcomes"]) == 3
    assert reason in found["outcomes_unknown"]


def test_ingest_counts_searches_that_have_not_ended(tmp_path):
    path = tmp_path / "log.ndjson"
    with UbiWriter(path) as out:
        for i, at in enumerate([0, 1_000, 1_010, 1_020, 1_030]):
            query = {"query_id": f"q{i}", "client_id": f"u{i}", "timestamp": 1_700_000_000.0 + at}
            out.query(**query, user_query="lion", hit_ids=["a", "b"], attributes={})
            out.event("click", **query, session_id="", object_id="a", ordinal=1)
    assert "4 of 5 searches came within 5 minutes of the log's end" in " ".join(call("ingest", path).stdout.split())
    assert json.loads(call("ingest", path, "--json").stdout)["searches_not_ended"] == 4
    with path.open("a") as out:
        value = {"query_id": "end", "client_id": "u", "user_query": "x", "timestamp": 1_700_009_000}
        out.write(json.dumps(value) + "\n")
    later = json.loads(call("ingest", path, "--json").stdout)
    assert later["searches_not_ended"] == 1 and not any("log's end" in w for w in later["warnings"])


def test_ingest_names_actions_that_nothing_reads(log):
    with log.open("a") as out:
        value = {"action_name": "product_hover", "query_id": "q0", "client_id": "u0", "timestamp": 1_700_000_001}
        out.write(json.dumps(value) + "\n")
    assert "1 'product_hover'" in call("ingest", log).stdout
    found = json.loads(call("ingest", log, "--json").stdout)
    assert found["unknown_actions"] == {"product_hover": 1} and found["outcomes_unknown"] is None


def test_ingest_names_the_first_line_that_it_cannot_use(log):
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], "ubi_queries {}", *lines[1:]]) + "\n")
    last = call("ingest", log).stdout.strip().splitlines()[-1]
    assert "line 2" in last and "ubi_queries" in last


def test_json_has_no_nan(capsys):
    from corewrite.cli.common import print_json

    print_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": (float("-inf"),)}})
    assert json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name)) == {
        "a": None, "b": [None, 1.5], "c": {"d": [None]},
    }  # fmt: skip
