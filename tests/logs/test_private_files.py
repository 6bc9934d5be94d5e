"""Files with users' texts are read by their owner alone, whatever the process's umask says and whatever was there before."""

import json
import os
import stat

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corewrite.cycle.users import Users
from corewrite.logs import UbiWriter, read_log, write_instances
from corewrite.logs.mined_files import write_reformulations
from corewrite.logs.pack import pack_log
from corewrite.storage.durable import make_private
from corewrite.storage.journal import Journal
from corewrite.training.checkpoint import RunFolder
from corewrite.tuning.requests import write_requests


@pytest.fixture(autouse=True)
def _open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def write_log(path):
    with UbiWriter(path) as out:
        out.query(query_id="q", client_id="c", user_query="my name", timestamp=1e9, hit_ids=[], attributes={})


def rejects(path):
    log = path.with_name("log.ndjson")
    write_log(log)
    log.write_text(log.read_text("utf-8") + json.dumps({"user_query": "my name"}) + "\n")
    assert read_log([log], rejects_path=path).report.rejected == 1


def packed(path):
    write_log(path.with_name("log.ndjson"))
    pack_log([path.with_name("log.ndjson")], path)


WRITERS = {
    "log": write_log,
    "rejects": rejects,
    "packed": packed,
    "instances": lambda path: write_instances([], path),
    "reformulations": lambda path: write_reformulations([], path),
    "requests": lambda path: write_requests(pa.table({"query": ["my name"]}), path),
    "users": lambda path: Users(frozenset(), {}, None, ()).write(path),
    "journal": lambda path: Journal(path.parent).once(path.stem, lambda: {"query": "my name"}),
    "training": lambda path: RunFolder(path.parent, {})._write(path, b"my name"),
}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_mode(tmp_path, name, there):
    path = tmp_path / f"{name}.json"
    if there and name != "journal":  # what the journal has is not written again
        path.write_text("older")
        path.chmod(0o666)
    WRITERS[name](path)
    assert path.stat().st_size and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_library_leaves_the_mode(tmp_path):
    path = make_private(tmp_path / "a.parquet")
    assert path.stat().st_size == 0
    pq.write_table(pa.table({"a": [1]}), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and pq.read_table(path).num_rows == 1
