"""What a cycle keeps of a week: sets that are whole or not there, and documents that leave the catalogue."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from corewrite.cycle import mined_week as mined
from corewrite.cycle.mined_week import freeze, with_documents
from corewrite.domain import Catalogue, Query, TrainingInstance
from corewrite.logs import read_evaluation_instances

ONE = TrainingInstance("q1", "u1", Query("lion"), ("a", "b"), (1.0, 2.0), ("c", "d"), (3.0, 4.0))


def test_documents_that_left_the_catalogue_leave_the_instances():
    assert with_documents([ONE], Catalogue.of_ids("abcd")) == [ONE]
    left = replace(ONE, positives=("b",), gains=(2.0,), negatives=("c",), weights=(3.0,))
    assert with_documents([ONE], Catalogue.of_ids("bc")) == [left]
    assert with_documents([ONE, ONE], Catalogue.of_ids("cd")) == [] == with_documents([ONE], Catalogue.of_ids("ab"))


def test_a_frozen_set_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path, write = tmp_path / "apart" / "frozen.parquet", pq.write_table

    def killed(table, where):
        where.write_bytes(b"PAR1")
        raise KeyboardInterrupt

    monkeypatch.setattr("corewrite.logs.mined_files.pq.write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        freeze([ONE], path)
    assert not path.exists()
    # What a SIGKILL leaves, which may be read only.
    left = path.with_name(".partial-frozen.parquet")
    left.write_bytes(b"PAR1")
    left.chmod(0o400)
    monkeypatch.setattr("corewrite.logs.mined_files.pq.write_table", write)
    freeze([ONE], path)
    assert path.stat().st_mode & 0o777 == 0o400 and not left.exists()
    assert [x.instance_id for x in read_evaluation_instances(path)] == ["q1"]


def test_queries_are_counted_over_all_weeks_and_over_those_before():
    class Week:
        def __init__(self, counts):
            self.counts = counts

        def frequency(self):
            return mined.Counter(self.counts)

    everything, before = mined.frequencies([Week({"a": 2}), Week({"a": 1, "b": 1})])
    assert (everything, before) == ({"a": 3, "b": 1}, {"a": 2})
