"""A week under a ranker and an engine of one's own reads documents from the disk, and is the week that it is in memory."""

import shutil
import sys
from pathlib import Path

from corewrite.cycle.run import run_cycle
from corewrite.deployment.settings import RankerSettings
from corewrite.registry import Registry
from corewrite.search.document_store import DocumentStore

sys.path.insert(0, str(Path(__file__).parent))


def all_foreign():
    inputs = {"text": "text", "document": "document", "picture": "document.visual"}
    signal = {
        "kind": "python", "factory": "own_ranker:words_and_picture", "version": "1", "options": {"version": "1"},
        "inputs": inputs,
    }  # fmt: skip
    return {"signals": {"relevance": signal, "dense": signal}, "recall": {"kind": "python", "factory": "own_ranker:ByWords"}}


def test_a_week_of_documents_on_disk_is_that_of_documents_in_memory(settings, steps, platform, tmp_path, monkeypatch):
    documents = tmp_path / "documents.parquet"
    shutil.copyfile(platform / "documents.parquet", documents)
    week = {"ranker": all_foreign(), "refresh": {"relevance_every": 0, "examples": 200}, "documents": documents}
    with monkeypatch.context() as nothing:
        for name in ("corewrite.cycle.judges.read_catalogue", "corewrite.deployment.documents.read_catalogue"):
            nothing.setattr(name, None)
        nothing.setattr(DocumentStore, "catalogue", None)  # nor is it read into memory later
        on_disk = run_cycle(settings("disk", **week), "w1", steps=steps)
    assert (tmp_path / ".documents.parquet.store").is_dir()
    monkeypatch.setattr(RankerSettings, "needs_documents_in_memory", True)
    monkeypatch.setattr(DocumentStore, "open", None)
    in_memory = run_cycle(settings("memory", **week), "w1", steps=steps)
    assert on_disk["verdict"] in ("promote", "hold", "reject")
    assert (on_disk["verdict"], on_disk["reason"]) == (in_memory["verdict"], in_memory["reason"])
    made = [sorted(a.hash for a in Registry(tmp_path / run / "registry").artifacts()) for run in ("disk", "memory")]
    assert made[0] == made[1] and len(made[0]) >= 3, "policies, relevance and spec have the same content"
