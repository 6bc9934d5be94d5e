"""Documents on disk: the same answers as in memory, whatever the Parquet holds; converted once, and again when it changed."""

import json
import math
import os
import pickle
import shutil
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corewrite.domain import Catalogue
from corewrite.domain.documents import RepeatedIds
from corewrite.search import document_store
from corewrite.search.document_store import DocumentStore, in_memory
from corewrite.search.documents import DocumentsError, copy_documents, read_catalogue, write_catalogue
from corewrite.search.id_index import IdIndex, hash_ids, sorted_hashes

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
FLOAT = st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False))
K = 3
VECTOR = st.one_of(st.none(), st.lists(FLOAT, min_size=K, max_size=K))
STRINGS = st.sampled_from([pa.string(), pa.large_string(), pa.binary()])
LISTS = st.sampled_from([pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), K)])


def column(values, n):
    return st.lists(values, min_size=n, max_size=n)


@st.composite
def tables(draw):
    """Columns as people bring them, of several Arrow types, with nulls; and the sizes of the row groups."""
    ids = draw(st.lists(TEXT, min_size=1, max_size=12, unique=True))
    n = len(ids)
    arrays = {
        "creator": pa.array(draw(column(st.one_of(st.none(), TEXT), n)), draw(STRINGS)),
        "likes": pa.array(draw(column(st.one_of(st.none(), st.integers(-(2**53), 2**53)), n)), pa.int64()),
        "audio": pa.array(draw(column(VECTOR, n)), draw(LISTS)),
        "frames": pa.array(
            draw(column(st.one_of(st.none(), st.lists(VECTOR, max_size=3)), n)), pa.list_(pa.list_(pa.float32()))
        ),
        "visual": pa.array(
            draw(column(st.one_of(st.none(), st.lists(st.floats(-9, 9, width=32), min_size=2, max_size=2)), n)),
            pa.list_(pa.float32()),
        ),
        "id": pa.array(ids),
        "text": pa.array(draw(column(st.one_of(st.none(), TEXT), n)), pa.string()),
        "title": pa.array(draw(column(st.one_of(st.none(), TEXT), n)), pa.string()).dictionary_encode(),
        "prior": pa.array(draw(column(st.one_of(st.none(), st.floats(2**-10, 1)), n)), pa.float64()),
        "seconds": pa.array(draw(column(st.one_of(st.none(), st.integers(0, 9)), n)), pa.int32()),
    }
    dropped = draw(st.sets(st.sampled_from(sorted(arrays.keys() - {"id", "title"}))))
    return pa.table({k: v for k, v in arrays.items() if k not in dropped}), draw(st.integers(1, n))


def expected(table, name, row):
    """The value of a cell, written down from what `to_pylist` says."""
    value = table[name][row].as_py()
    if name in ("id", "title", "text", "creator"):
        return (value.decode() if isinstance(value, bytes) else value) or ""
    if name in ("likes", "seconds", "prior"):
        return (1.0 if name == "prior" else math.nan) if value is None else float(value)
    if name == "frames":
        return [[math.nan] * K if v is None else [math.nan if x is None else x for x in v] for v in value or []]
    width = 2 if name == "visual" else K
    return [math.nan] * width if value is None else [math.nan if x is None else x for x in value]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=tables(), data=st.data())
def test_store_and_catalogue_say_what_the_file_says(made, data, tmp_path_factory, monkeypatch):
    table, row_group = made
    folder = tmp_path_factory.mktemp("store")
    pq.write_table(table, folder / "d.parquet", row_group_size=row_group)
    with monkeypatch.context() as small:  # several batches in the Arrow file, several reads of the Parquet
        small.setattr(document_store, "_BATCH_BYTES", 1)
        monkeypatch.setattr(document_store, "_READ", 3)
        small.setattr("corewrite.search.documents._ROWS", data.draw(st.integers(1, 5)))
        store = DocumentStore.open(folder / "d.parquet")
        catalogue = read_catalogue(folder / "d.parquet")
    n = table.num_rows
    assert len(store) == len(catalogue) == n
    assert store.column_names == catalogue.column_names and store.left_out == dict(catalogue.left_out)
    assert in_memory(store).content_hash == catalogue.content_hash
    ids = table["id"].to_pylist()
    asked = [*data.draw(st.lists(st.one_of(st.sampled_from(ids), TEXT), max_size=9)), "\ud800"]
    where = [ids.index(i) if i in ids else -1 for i in asked]
    assert store.find(asked).tolist() == catalogue.find(asked).tolist() == where
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=9)), np.int64)
    for documents in (store, catalogue):
        assert documents.load_ids(rows) == [ids[r] for r in rows]
        for name in documents.column_names:
            values = documents.column(name, rows)
            assert len(values) == len(rows)
            for value, row in zip(values, rows.tolist(), strict=True):
                wanted = expected(table, name, row)
                if isinstance(wanted, str):
                    assert value == wanted
                elif name == "frames":
                    assert value.dtype == np.float32 and value.shape == (len(wanted), K)
                    np.testing.assert_array_equal(value, np.array(wanted, np.float32).reshape(-1, K))
                else:
                    np.testing.assert_array_equal(value, np.array(wanted, values.dtype))
            if isinstance(values, np.ndarray):
                assert values.dtype == (np.float64 if values.ndim == 1 else np.float32)
    # A column that nothing stands in has no width to be known by; all others of the file are there.
    assert set(table.column_names) - set(store.column_names) <= {"audio", "frames", "visual"}


@settings(max_examples=60)
@given(ids=st.lists(TEXT, unique=True, max_size=30), asked=st.lists(TEXT, max_size=10), buckets=st.integers(1, 4))
def test_equal_hashes_are_told_apart_by_the_ids(ids, asked, buckets):
    def tiny(texts):
        return hash_ids(texts) % np.uint64(buckets)

    index = IdIndex(*sorted_hashes(tiny(ids)), lambda rows: [ids[r] for r in rows], tiny)
    assert index.find([*ids, *asked]).tolist() == [ids.index(i) if i in ids else -1 for i in [*ids, *asked]]
    assert index.repeated() is None


@settings(max_examples=60)
@given(ids=st.lists(st.sampled_from("abcdefgh"), max_size=12), buckets=st.integers(1, 3))
def test_repeated_ids_are_counted_and_the_first_of_them_named_with_their_first_row(ids, buckets):
    def tiny(texts):
        return hash_ids(texts) % np.uint64(buckets)

    index = IdIndex(*sorted_hashes(tiny(ids)), lambda rows: [ids[r] for r in rows], tiny)
    repeats = [(doc_id, ids.index(doc_id), row) for row, doc_id in enumerate(ids) if ids.index(doc_id) < row]
    assert index.repeated() == (RepeatedIds(len(repeats), tuple(repeats[:3])) if repeats else None)


def test_hashes_are_the_same_on_every_machine():
    assert hash_ids(["a", "", "ö"]).tolist() == [3405396810240292928, 13020603013274838756, 1878671361576370148]


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def converted(monkeypatch):
    """How often a conversion ran."""
    done, convert = [], document_store._convert
    monkeypatch.setattr(document_store, "_convert", lambda *a: (done.append(1), convert(*a)))
    return done


def test_it_is_converted_once_and_again_only_when_the_content_changed(tmp_path, monkeypatch):
    runs, path = converted(monkeypatch), tmp_path / "d.parquet"
    write(path, id=["a", "b"], title=["x", "y"])
    assert DocumentStore.open(path).column("title", np.array([1])) == ["y"]
    old = path.stat()
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns + 10**9))  # touched
    held = DocumentStore.open(path)
    assert len(runs) == 1
    write(path, id=["a", "b"], title=["x", "z"])  # the same size, and the clock put back to the same time
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns + 10**9))
    assert path.stat().st_size == old.st_size
    assert DocumentStore.open(path).column("title", np.array([1])) == ["z"]
    assert len(runs) == 2
    assert held.column("title", np.array([1])) == ["y"], "who has the old ones open keeps them"
    assert len([p for p in (tmp_path / ".d.parquet.store").iterdir() if p.is_dir()]) == 1, "the old ones take no disk"


def test_a_file_that_rests_is_not_read_again(tmp_path, monkeypatch):
    path = write(tmp_path / "d.parquet", id=["a"], title=["x"])
    os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**10))
    DocumentStore.open(path)
    monkeypatch.setattr("hashlib.file_digest", None)
    assert DocumentStore.open(path).load_ids(np.array([0])) == ["a"]


def test_a_cache_that_may_only_be_read_is_read(tmp_path, monkeypatch):
    path, cache = write(tmp_path / "d.parquet", id=["a"], title=["x"]), tmp_path / "cache"
    DocumentStore.open(path, cache=cache)
    os.utime(path, ns=(0, 0))

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(document_store, "_write_source", refuse)
    monkeypatch.setattr(document_store, "FileLock", refuse)
    assert len(DocumentStore.open(path, cache=cache)) == 1
    assert not (tmp_path / ".d.parquet.store").exists()


@pytest.mark.parametrize("name", ["about.json", "documents.arrow", "id-hashes.npy", "id-rows.npy", "source.json"])
@pytest.mark.parametrize("harm", ["cut", "emptied", "gone", "garbled head"])
def test_a_torn_cache_is_made_again(tmp_path, monkeypatch, name, harm):
    path = write(tmp_path / "d.parquet", id=["a", "b"], title=["x", "y"], visual=[[1.0], [2.0]])
    DocumentStore.open(path)
    runs, cache = converted(monkeypatch), tmp_path / ".d.parquet.store"
    (victim,) = cache.rglob(name)
    if harm == "gone":
        victim.unlink()
    elif harm == "garbled head":
        victim.write_bytes(b"\xff" * 8 + victim.read_bytes()[8:])
    else:
        os.truncate(victim, 0 if harm == "emptied" else victim.stat().st_size // 2)
    found = DocumentStore.open(path)
    assert found.rows(["b", "a"]).tolist() == [1, 0] and found.column("visual", np.array([1])).tolist() == [[2.0]]
    unread = name == "source.json" or (name, harm) == ("documents.arrow", "garbled head")  # Arrow goes by the footer
    assert len(runs) == (not unread)


def test_a_killed_conversion_leaves_nothing_that_is_taken_for_whole(tmp_path, monkeypatch):
    path = write(tmp_path / "d.parquet", id=["a"], title=["x"])
    cache = tmp_path / ".d.parquet.store"

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(document_store, "sync_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        DocumentStore.open(path)
    assert not [p for p in cache.iterdir() if p.is_dir()]
    monkeypatch.undo()
    DocumentStore.open(path)
    (whole,) = [p for p in cache.iterdir() if p.is_dir()]
    shutil.copytree(whole, cache / f".partial-{'0' * 16}")  # what a SIGKILL leaves
    write(path, id=["b"], title=["x"])
    assert DocumentStore.open(path).load_ids(np.array([0])) == ["b"]
    assert len([p for p in cache.iterdir() if p.is_dir()]) == 1


def test_a_file_that_changes_while_it_is_converted_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "d.parquet", id=["a"], title=["x"])
    convert = document_store._convert

    def meanwhile(*arguments):
        convert(*arguments)
        write(path, id=["b", "c"], title=["x", "y"])

    monkeypatch.setattr(document_store, "_convert", meanwhile)
    with pytest.raises(DocumentsError, match="was changed while it was read: try again"):
        DocumentStore.open(path)
    monkeypatch.undo()
    assert DocumentStore.open(path).load_ids(np.array([0, 1])) == ["b", "c"]


def test_a_folder_of_files_is_read_in_the_order_of_their_names(tmp_path):
    for name, ids in (("part-2", ["c"]), ("part-1", ["a", "b"])):
        write(tmp_path / f"{name}.parquet", id=ids, title=ids, likes=[1] * len(ids))
    for documents in (DocumentStore.open(tmp_path, cache=tmp_path / "cache"), read_catalogue(tmp_path)):
        assert documents.load_ids(np.arange(3)) == ["a", "b", "c"]
    write(tmp_path / "part-3.parquet", id=["d"], title=["d"])
    with pytest.raises(DocumentsError, match=r"part-3\.parquet: column 'likes' is missing, part-1\.parquet has it"):
        read_catalogue(tmp_path)
    write(tmp_path / "part-3.parquet", id=["d"], title=["d"], likes=["many"])
    with pytest.raises(DocumentsError, match=r"part-3\.parquet: column 'likes' holds a text, in part-1\.parquet a number"):
        read_catalogue(tmp_path)
    write(tmp_path / "part-3.parquet", id=["a"], title=["d"], likes=[1])
    for read in (lambda p: DocumentStore.open(p, cache=tmp_path / "cache"), read_catalogue):
        with pytest.raises(DocumentsError, match="not unique: 'a' is at rows 0 and 3"):
            read(tmp_path)
    with pytest.raises(DocumentsError, match=r"holds no \*\.parquet file"):
        read_catalogue(tmp_path / "cache")


@pytest.mark.parametrize("read", [read_catalogue, DocumentStore.open])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"]}, "column 'title' is missing; there are id"),
        ({"id": ["a", "b", "a"], "title": ["x"] * 3}, "not unique: 'a' is at rows 0 and 2"),
        (
            {"id": [*"abcdefg", "e", "a", "e", "b", "c"], "title": ["x"] * 12},
            r"not unique: 'e' is at rows 4 and 7, 'a' is at rows 0 and 8, 'e' is at rows 4 and 9, and 2 more \(5 documents",
        ),
        ({"id": ["a", None], "title": ["x", "y"]}, "the document at row 1 has no id"),
        ({"id": ["a"], "title": ["x"], "prior": [1.5]}, r"prior 1\.5 of 'a' is not in \(0, 1\]"),
        ({"id": ["a"], "title": ["x"], "prior": ["high"]}, "column prior: .*high"),
        ({"id": ["a", "b"], "title": ["x", "y"], "visual": [[1.0], [1.0, 2.0]]}, r"found \[1, 2\]"),
        ({"id": ["a"], "title": ["x"], "visual": [[float("nan")]]}, "visual of 'a' holds values that are not finite"),
        ({"id": ["a"], "title": ["x"], "visual": ["cat"]}, "column visual: it is string, not a list of numbers"),
    ],
)
def test_bad_documents_are_refused_with_the_value(tmp_path, columns, message, read):
    with pytest.raises(DocumentsError, match=message) as raised:
        read(write(tmp_path / "d.parquet", **columns))
    assert "d.parquet" in str(raised.value)


@pytest.mark.parametrize("read", [read_catalogue, DocumentStore.open])
def test_what_is_no_parquet_is_refused(tmp_path, read):
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(DocumentsError, match="cannot be read as Parquet"):
        read(tmp_path / "x.parquet")
    with pytest.raises(DocumentsError, match=r"gone\.parquet: there are no documents"):
        read(tmp_path / "gone.parquet")
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    with pytest.raises(DocumentsError, match=r"column title: .*UTF"):
        read(write(tmp_path / "u.parquet", id=["a"], title=bad))


@pytest.mark.parametrize("read", [read_catalogue, DocumentStore.open])
def test_columns_that_cannot_be_used_say_why(tmp_path, read):
    path = write(
        tmp_path / "d.parquet", id=["a", "b"], title=["x", "y"], tags=[["t"], []], topics=[[1, 2], [1]], nothing=[None, None],
        about=[{"k": 1}, None], empty=pa.array([[], None], pa.list_(pa.float32())),
    )  # fmt: skip
    found = read(path)
    assert found.column_names == ("id", "title")
    for name, reason in {
        "tags": "it is list<.*string>, not a text, a number, a list of numbers or a list of lists of numbers",
        "topics": r"its lists differ in length: \[1, 2\]",
        "nothing": "it holds nothing",
        "empty": "it holds nothing",
        "about": "it is struct",
        "prior": "the file has none",
    }.items():
        with pytest.raises(ValueError, match=rf"no column '{name}' \({reason}.*\); there are id, title"):
            found.column(name, np.array([0]))


@pytest.mark.parametrize("read", [read_catalogue, DocumentStore.open])
def test_numbers_and_texts_of_other_types(tmp_path, read):
    found = read(
        write(
            tmp_path / "d.parquet", id=[7, 8], title=[b"x", None], price=[Decimal("1.50"), None], live=[True, None],
            seconds=["3.5", None],
        )
    )  # fmt: skip
    both = np.array([0, 1])
    assert found.load_ids(both) == ["7", "8"] and found.column("title", both) == ["x", ""]
    np.testing.assert_array_equal(found.column("price", both), [1.5, math.nan])
    np.testing.assert_array_equal(found.column("live", both), [1, math.nan])
    np.testing.assert_array_equal(found.column("seconds", both), [3.5, math.nan])


def test_no_documents_at_all(tmp_path):
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"id": pa.array([], pa.string()), "title": pa.array([], pa.string())}), path)
    for documents in (DocumentStore.open(path), read_catalogue(path)):
        assert len(documents) == 0 and documents.find(["a"]).tolist() == [-1]
        assert documents.column("title", np.empty(0, np.int64)) == []


def test_what_is_written_comes_back(tmp_path):
    catalogue = Catalogue(
        ("a", "b"), ("x", ""), ("", "t"), np.array([[1, 2], [np.nan, np.nan]], np.float32), np.array([3.0, np.nan]),
        np.array([0.5, 1.0]),
        {"likes": np.array([1.0, np.nan]), "frames": (np.ones((2, 3), np.float32), np.empty((0, 3), np.float32))},
        {"note": "the file has none"},
    )  # fmt: skip
    write_catalogue(catalogue, tmp_path / "d.parquet")
    assert read_catalogue(tmp_path / "d.parquet").content_hash == catalogue.content_hash
    assert pq.read_table(tmp_path / "d.parquet")["seconds"].null_count == 1


def test_a_store_travels_to_another_process_by_its_folder(tmp_path):
    store = DocumentStore.open(write(tmp_path / "d.parquet", id=["a"], title=["x"]))
    packed = pickle.dumps(store)
    assert len(packed) < 1_000 and pickle.loads(packed).rows(["a"]).tolist() == [0]


def test_progress_is_told_in_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(document_store, "_BATCH_BYTES", 1)
    monkeypatch.setattr("corewrite.search.documents._ROWS", 2)
    told = []
    path = write(tmp_path / "d.parquet", id=list("abcde"), title=list("abcde"))
    DocumentStore.open(path, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]
    about = json.loads(next((tmp_path / ".d.parquet.store").rglob("about.json")).read_text())
    assert about["documents"] == 5


def test_copies_are_whole_and_hold_nothing_else(tmp_path):
    one = write(tmp_path / "d.parquet", id=["a"], title=["x"], more=[1])
    copy_documents(one, tmp_path / "run" / "documents.parquet")
    assert (tmp_path / "run" / "documents.parquet").read_bytes() == one.read_bytes()
    copy_documents(one, one)
    assert read_catalogue(one).ids == ("a",)
    parts, target = tmp_path / "parts", tmp_path / "run" / "parts"
    for folder, names in ((parts, "ab"), (target, "az")):
        folder.mkdir()
        for name in names:
            write(folder / f"{name}.parquet", id=[name + folder.parent.name], title=["x"])
    copy_documents(parts, target)
    assert read_catalogue(target).ids == read_catalogue(parts).ids and len(read_catalogue(target)) == 2
    with pytest.raises(DocumentsError, match="there are no documents"):
        copy_documents(tmp_path / "gone", target)
    assert len(read_catalogue(target)) == 2


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel does not say")
def test_reading_everything_does_not_keep_it(tmp_path, monkeypatch):
    monkeypatch.setattr(document_store, "_READ", 512)
    texts = [f"{i:04d}" * 500 for i in range(20_000)]
    store = DocumentStore.open(write(tmp_path / "d.parquet", id=[str(i) for i in range(20_000)], title=texts))
    table = next((tmp_path / ".d.parquet.store").rglob("documents.arrow"))
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows = rng.permutation(20_000)
        assert store.column("title", rows[:9_000])[:3] == [texts[r] for r in rows[:3]]
        # Not mapped: what the kernel maps around a page that is touched counts as ours, megabytes on some.
        assert str(table) not in Path("/proc/self/maps").read_text()


def test_a_file_that_was_cut_while_it_was_open_is_an_error_and_no_crash(tmp_path):
    texts = [f"{i:04d}" * 500 for i in range(2_000)]
    store = DocumentStore.open(write(tmp_path / "d.parquet", id=[str(i) for i in range(2_000)], title=texts))
    os.truncate(next((tmp_path / ".d.parquet.store").rglob("documents.arrow")), 1_000_000)
    assert store.column("title", np.array([3])) == [texts[3]]
    with pytest.raises(OSError, match=r"documents\.arrow ends at byte 1000000, in the middle of a value"):
        store.column("title", np.arange(2_000))
