"""A run folder whose JSON somebody changed: one error that names the file, never a crash."""

import json

import pytest

from corewrite.cycle.mined_week import MinedWindow
from corewrite.cycle.status import load_history
from corewrite.storage.journal import JournalError
from corewrite.training.checkpoint import RunFolder
from corewrite.training.errors import ResumeError

ODD = ["5", "[]", "{", "[" * 100_000, '{"a": {"b": [', "null", '"x"']
RECORD = {"week": "w1", "verdict": "hold", "reason": "so", "alarms": ["a"]}


@pytest.mark.parametrize("content", ODD)
def test_odd_json(tmp_path, content):
    (tmp_path / "cycles" / "w1").mkdir(parents=True)
    (tmp_path / "phases" / "000").mkdir(parents=True)
    record = tmp_path / "cycles" / "w1" / "record.json"
    for file in (record, tmp_path / "about.json", tmp_path / "phases" / "000" / "record.json"):
        file.write_text(content)
    with pytest.raises(JournalError, match=r"record\.json is damaged"):
        load_history(tmp_path)
    with pytest.raises(JournalError, match=r"about\.json is damaged .* mined again"):
        _ = MinedWindow(tmp_path).about
    with pytest.raises(ResumeError, match=r"record\.json is damaged"):
        RunFolder(tmp_path, {"seed": 1}).records()
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ResumeError, match=r"run\.json is damaged"):
        RunFolder(tmp_path, {"seed": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"week": "../w2"},
        {"week": 5},
        {"verdict": "maybe"},
        {"verdict": ["hold"]},
        {"reason": 5},
        {"alarms": "a"},
        {"alarms": [5]},
    ],
)  # fmt: skip
def test_a_record_that_says_what_none_says(tmp_path, change):
    file = tmp_path / "cycles" / "w1" / "record.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(RECORD))
    assert load_history(tmp_path) == [RECORD]
    file.write_text(json.dumps(RECORD | change))
    with pytest.raises(JournalError, match=r"record\.json is damaged"):
        load_history(tmp_path)
