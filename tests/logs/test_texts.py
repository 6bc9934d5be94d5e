"""Hashes are never read as texts."""

import json

import pytest

from corewrite.logs import LogError, find_outcomes, read_log, require_texts


def log_of(tmp_path, kinds):
    """A log whose searches hold their texts in these ways, `None` for a line of somebody else's."""
    path = tmp_path / "log.ndjson"
    lines = []
    for i, kind in enumerate(kinds):
        line = {"query_id": f"q{i}", "client_id": f"u{i}", "user_query": f"text {i}", "timestamp": 1_700_000_000 + i}
        lines.append(line | ({} if kind is None else {"query_attributes": {"served": {"texts": kind}}}))
    path.write_text("\n".join(map(json.dumps, lines)))
    return read_log(path)


def test_a_log_of_texts_is_left_as_it_is(tmp_path):
    log = log_of(tmp_path, [None, "plain", True])
    assert require_texts(log) is log and log.report.warnings == log_of(tmp_path, [None] * 3).report.warnings
    assert log.searches.to_pyarrow()["texts"].to_pylist() == [None, "plain", "plain"]


def test_searches_of_hashes_are_left_out_and_told_of(tmp_path):
    log = log_of(tmp_path, ["plain", False, True, None, "hashed", "plain", "sealed"])
    assert any("3 of 7 searches hold no text that can be read (log.query_text" in w for w in log.report.warnings)
    assert sorted(find_outcomes(require_texts(log)).query) == ["text 0", "text 2", "text 3", "text 5"]
    assert len(find_outcomes(log)) == 7  # who only counts may have them


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([False], r"1 of 1 searches hold hashes .* serve with `log.query_text: true` or `log.seal_to`"),
        (["hashed", "plain"], r"1 of 2 searches hold hashes"),
        (["hashed", "hashed", None], r"2 of 3 searches hold hashes"),
        (["sealed", "sealed", "hashed"], r"3 of 3 searches hold sealed texts.* `privacy.keys`"),
    ],
)
def test_a_log_of_hashes_is_refused(tmp_path, kinds, words):
    with pytest.raises(LogError, match=words):
        require_texts(log_of(tmp_path, kinds))
