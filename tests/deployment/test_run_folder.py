"""Where a run folder says that its documents are, whatever stands there."""

from pathlib import Path

import pytest

from corewrite.deployment.run_folder import documents_of_run, note_documents
from corewrite.domain import ConfigError


def test_what_was_noted_is_found_and_a_copy_goes_first(tmp_path):
    note_documents(tmp_path, tmp_path / "there.parquet")
    assert documents_of_run(tmp_path) == tmp_path / "there.parquet"
    (tmp_path / "documents.parquet").write_bytes(b"")
    assert documents_of_run(tmp_path) == tmp_path / "documents.parquet"


@pytest.mark.parametrize("content", [b"", b"5", b"[]", b"{}", b'{"documents": 5}', b"\xff", b"[" * 100_000])
def test_a_note_that_cannot_be_read(tmp_path, content):
    (tmp_path / "documents.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"documents\.json of the run folder .* cannot be read"):
        documents_of_run(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a\x00b", "a/" * 3_000, "\x1b[31m", "nowhere"])
def test_a_folder_that_is_none_is_one_line(name):
    with pytest.raises(ConfigError) as caught:
        documents_of_run(Path(name))
    said = str(caught.value)
    assert all(c.isprintable() for c in said) and len(said) < 800 and "documents" in said
