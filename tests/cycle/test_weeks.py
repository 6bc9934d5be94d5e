"""Which logs a training takes where none is named."""

import pytest

from corewrite.cycle.weeks import CycleError, split_windows


@pytest.fixture
def logs(tmp_path):
    for name in ("w1.ndjson", "w2.ndjson", "w3.ndjson.gz", "w4/a.ndjson", "w4/b.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def test_the_newest_week_and_those_before_it(logs):
    earlier, window = split_windows(logs, [], [], 2)
    assert [f.name for f in earlier] == ["w2.ndjson", "w3.ndjson.gz"]
    assert [f.relative_to(logs).as_posix() for f in window] == ["w4/a.ndjson", "w4/b.parquet"]


def test_what_is_named_counts(logs):
    assert split_windows(logs, [logs / "x"], [logs / "y"], 2) == ([logs / "x"], [logs / "y"])
    assert split_windows(None, [logs / "x"], [logs / "y"], 2) == ([logs / "x"], [logs / "y"])


def test_half_named_or_nothing_there_is_refused(tmp_path):
    for named in (([tmp_path], []), ([], [tmp_path])):
        with pytest.raises(CycleError, match="--earlier-log and --log, or `logs:`"):
            split_windows(tmp_path, *named, 2)
    with pytest.raises(CycleError, match="--earlier-log and --log"):
        split_windows(None, [], [], 2)
    (tmp_path / "w1.ndjson").write_text("")
    with pytest.raises(CycleError, match="holds 1 weeks of log: training needs a week, and one before it"):
        split_windows(tmp_path, [], [], 2)
