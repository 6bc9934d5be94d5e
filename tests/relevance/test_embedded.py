"""What the embedded models refuse: too many documents for the machine, and pictures of some."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corewrite.relevance import cold_start, embedded
from corewrite.relevance.embedded import TooManyDocumentsError, check_embedded, memory_bytes
from corewrite.search.document_store import DocumentStore, in_memory
from corewrite.search.documents import read_catalogue


def test_the_limit_follows_from_the_memory():
    check_embedded(2**20, 8 * 2**30)
    message = r"1,048,577 documents .* limit of 1,048,576, one for each 8 KiB of the 8\.0 GiB .*\{kind: opensearch, vector"
    with pytest.raises(TooManyDocumentsError, match=message):
        check_embedded(2**20 + 1, 8 * 2**30)


@pytest.mark.parametrize(("said", "wanted"), [("3000000\n", 3_000_000), ("max\n", None), (None, None)])
def test_a_container_has_the_memory_that_it_is_given(monkeypatch, tmp_path, said, wanted):
    path = tmp_path / "memory.max"
    if said:
        path.write_text(said)
    monkeypatch.setattr(embedded, "_CGROUP_LIMITS", (path,))
    machine = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert memory_bytes() == (wanted or pytest.approx(int(machine.split()[1]) * 1024, rel=0.01))


def test_what_is_read_into_memory_is_counted_first(monkeypatch, tmp_path):
    pq.write_table(pa.table({"id": list("abc"), "title": ["x"] * 3}), tmp_path / "d.parquet")
    store = DocumentStore.open(tmp_path / "d.parquet")
    assert in_memory(store) is in_memory(store)
    assert in_memory(store).ids == read_catalogue(tmp_path / "d.parquet").ids == ("a", "b", "c")
    monkeypatch.setattr("corewrite.relevance.embedded.memory_bytes", lambda: 2 * 8192)
    monkeypatch.setattr("corewrite.search.documents.kept_batches", None)
    again = DocumentStore.open(tmp_path / "d.parquet")
    for read in (lambda: read_catalogue(tmp_path / "d.parquet"), lambda: in_memory(again)):
        with pytest.raises(TooManyDocumentsError, match="3 documents are over the embedded engine's limit of 2"):
            read()


def test_pictures_of_some_documents_only_are_refused_by_what_needs_all(catalogue, model):
    visual = catalogue.visual.copy()
    visual[[7, 9]] = np.nan
    some = replace(catalogue, visual=visual)
    for use in (cold_start, model.bind):
        with pytest.raises(ValueError, match=rf"document '{catalogue.ids[7]}' has no picture, nor have 1 others of 1500"):
            use(some)
