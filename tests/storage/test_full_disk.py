"""A disk that is full names the file that did not fit, whoever writes it. The kernel refuses writes here as it does then."""

import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.domain import Catalogue, Query, TrainingInstance
from corewrite.logs import Reformulation, UbiWriter, write_instances, write_reformulations
from corewrite.logs.pack import pack_log
from corewrite.registry import Registry, RegistryError
from corewrite.relevance import cold_start
from corewrite.search.document_store import DocumentStore
from corewrite.search.documents import copy_documents, write_catalogue
from corewrite.storage.durable import naming, whole_file
from corewrite.storage.journal import write_json

N = 4_000
CATALOGUE = Catalogue(
    ids=tuple(str(i) for i in range(N)), titles=tuple(str(np.random.default_rng(i).random()) for i in range(N)),
    texts=("",) * N, visual=np.random.default_rng(0).random((N, 2), np.float32), seconds=np.ones(N), prior=np.ones(N),
)  # fmt: skip
LIMIT = 256


@contextmanager
def no_room(size=LIMIT):
    """No file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def ubi_log(path):
    with UbiWriter(path) as out:
        for i in range(300):
            out.query(query_id=f"q{i}", client_id="u", user_query="x" * 50, timestamp=1.7e9, hit_ids=["a"], attributes={})


def instances():
    return [TrainingInstance(f"i{i}", "u", Query(f"{i * 7919}"), ("a",), (1.0,), ("b",), (1.0,), 1.0) for i in range(3_000)]


WRITERS = {
    "UBI log": ubi_log,
    "zipped": lambda path: ubi_big(path.with_name("x.gz")),
    "documents": lambda path: write_catalogue(CATALOGUE, path),
    "instances": lambda path: write_instances(instances(), path),
    "repairs": lambda path: write_reformulations([Reformulation(Query(f"{i * 7919}"), "x", "u") for i in range(3_000)], path),
    "journal": lambda path: write_json(path, {"x": "y" * 9_000}),
    "relevance": lambda path: cold_start(CATALOGUE, ["lion"], seed=0).save(path),
}


def ubi_big(path):
    rng = np.random.default_rng(0)
    with UbiWriter(path) as out:
        for i in range(3_000):
            out.query(query_id=f"q{i}", client_id="u", user_query=str(rng.random()), timestamp=1.7e9, hit_ids=[], attributes={})


@pytest.mark.parametrize("kind", WRITERS)
def test_the_file_that_does_not_fit_is_named(kind, tmp_path):
    with no_room(), pytest.raises(OSError) as error:
        WRITERS[kind](tmp_path / "x.parquet")
    assert str(error.value.filename).startswith(str(tmp_path / "x")), error.value


@pytest.mark.parametrize("how", ["pack", "store", "copy"])
def test_what_is_made_of_a_file_names_its_own(how, tmp_path):
    source, log, target = tmp_path / "d.parquet", tmp_path / "log.ndjson", tmp_path / "new"
    write_catalogue(CATALOGUE, source)
    ubi_big(log)
    with no_room(), pytest.raises(OSError) as error:
        if how == "pack":
            pack_log([log], target / "log.parquet")
        elif how == "store":
            DocumentStore.open(source, cache=target)
        else:
            copy_documents(source, target / "d.parquet")
    assert str(error.value.filename).startswith(str(target)), error.value


@pytest.mark.parametrize("size", [0, LIMIT])
def test_a_registry_names_its_folder(tmp_path, size):
    registry = Registry(tmp_path / "registry")
    with no_room(size), pytest.raises(OSError) as error:
        registry.save("spec", lambda folder: (folder / "a.yaml").write_text("x" * (1 if size == 0 else 9_000)), {})
    assert str(error.value.filename).startswith(str(tmp_path / "registry")), error.value


def test_a_ledger_that_is_full_is_no_riddle(tmp_path):
    registry = Registry(tmp_path / "registry")
    size = max(f.stat().st_size for f in (tmp_path / "registry").iterdir() if f.is_file())
    with no_room(size), pytest.raises((OSError, RegistryError), match="registry"):
        for i in range(200):
            registry.save("spec", lambda folder, i=i: (folder / "a.yaml").write_text(str(i)), {"about": "x" * 500})


def test_what_the_kernel_says_of_a_full_disk():
    with pytest.raises(OSError) as error:
        ubi_log(Path("/dev/full"))
    assert (error.value.errno, error.value.filename) == (28, "/dev/full")


def test_a_name_that_is_there_stays_and_other_errors_pass(tmp_path):
    with pytest.raises(FileNotFoundError) as missing, naming(Path("outer")):
        (tmp_path / "nowhere").read_text()
    assert missing.value.filename == str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="as it was"), naming(Path("outer")):
        raise ValueError("as it was")


def test_the_command_says_which_file_and_what_to_do(tmp_path):
    ubi_log(tmp_path / "log.ndjson")
    with no_room(1_024):
        result = CliRunner().invoke(app, ["ingest", str(tmp_path / "log.ndjson"), "--out", str(tmp_path / "out")])
    said = " ".join(result.output.split())
    assert result.exit_code == 1, said
    assert str(tmp_path / "out" / "searches.parquet") in said.replace(" ", "") or "out/searches.parquet" in said
    assert "free" in said and "Traceback" not in said


def test_a_whole_file_names_what_it_was_to_be(tmp_path):
    with no_room(), pytest.raises(OSError) as error, whole_file(tmp_path / "final.parquet") as temporary:
        pq.write_table(pa.table({"x": np.random.default_rng(0).random(5_000)}), temporary)
    assert error.value.filename == str(tmp_path / "final.parquet")
