"""A packed log is the log: every line, read by every reader as the lines are."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.logs import find_outcomes, read_log
from corewrite.logs.files import LogError, log_files, log_lines
from corewrite.logs.pack import pack_log


def query(i, **attributes):
    return {
        "query_id": f"q{i}", "client_id": f"u{i % 3}", "user_query": f"word {i}", "timestamp": 1_772_409_600 + 60 * i,
        "query_response_hit_ids": ["a", "b"], "query_attributes": {"arm": "all_stages", "bucket": 77, **attributes},
    }  # fmt: skip


def click(i):
    return {
        "action_name": "click", "query_id": f"q{i}", "client_id": f"u{i % 3}", "timestamp": 1_772_409_605 + 60 * i,
        "event_attributes": {"object": {"object_id": "b"}, "position": {"ordinal": 2}},
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    lines = [json.dumps(x) for i in range(40) for x in (query(i), click(i))]
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.ndjson").write_text("\n".join(lines[:50]) + '\n{"torn": \n[1]\n', "utf-8")
    (tmp_path / "served" / "b.ndjson.gz").write_bytes(gzip.compress(("\n".join(lines[50:]) + "\n").encode()))
    (tmp_path / "served" / ".c.ndjson").write_text("still being written\n")
    return tmp_path


def test_every_line_is_there_and_every_reader_reads_the_same(folder):
    files = log_files(folder / "served")
    assert [f.name for f in files] == ["a.ndjson", "b.ndjson.gz"]
    packed = pack_log(files, folder / "week.parquet")
    assert (packed.lines, packed.searches, packed.events, packed.others) == (82, 40, 40, 2)
    before = [line for f in files for line in log_lines(f)]
    assert list(log_lines(folder / "week.parquet")) == before
    plain, again = read_log(files), read_log([folder / "week.parquet"])
    assert again.report.queries == plain.report.queries == 40 and again.report.rejected == plain.report.rejected == 2
    # The number of a line is that within its file; all else is the same.
    tables = [find_outcomes(log).to_arrow() for log in (plain, again)]
    assert tables[0].to_pandas().equals(tables[1].to_pandas())
    columns = pq.read_table(folder / "week.parquet", columns=["arm", "bucket", "kind"])
    assert columns["arm"].to_pylist().count("all_stages") == columns["bucket"].to_pylist().count(77) == 40
    # A packed one packs again, so a week of nights is one file.
    assert pack_log([folder / "week.parquet"], folder / "again.parquet").lines == 82


def test_the_command_removes_only_what_is_in_the_file(folder):
    run = CliRunner().invoke
    assert run(app, ["log", "pack", str(folder / "nowhere"), "--out", str(folder / "x.parquet")]).exit_code == 1
    done = run(
        app, ["log", "pack", str(folder / "served"), "--out", str(folder / "served" / "x.parquet"), "--remove", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["lines"] == 82
    assert sorted(p.name for p in (folder / "served").iterdir()) == [".c.ndjson", "x.parquet"]


def test_another_parquet_is_no_log(tmp_path):
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "documents.parquet")
    with pytest.raises(LogError, match="one that `corewrite log pack` wrote, this one has the columns id"):
        read_log(tmp_path / "documents.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(LogError, match="cannot read the log"):
        list(log_lines(tmp_path / "torn.parquet"))
    with pytest.raises(LogError, match="there is no line to pack"):
        pack_log([], tmp_path / "none.parquet")
    assert not (tmp_path / "none.parquet").exists()
