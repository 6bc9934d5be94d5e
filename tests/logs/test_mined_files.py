"""Files of what was mined: sets of the gate's are not for training."""

import stat
from pathlib import Path

import pytest

from corewrite.domain import Context, Query, TrainingInstance
from corewrite.logs import (
    EvaluationOnlyError,
    Reformulation,
    read_evaluation_instances,
    read_instances,
    read_reformulations,
    write_instances,
    write_reformulations,
)

ONE = TrainingInstance(
    "q1", "u1", Query("bts", Context(("blackpink",), ("a title",), "ko")), ("d1",), (2.0,), ("d2", "d3"), (1.0, 4.0), 12.5
)  # fmt: skip


def test_the_gates_set_is_refused_by_what_training_reads_with(tmp_path: Path) -> None:
    path = tmp_path / "frozen.parquet"
    write_instances([ONE], path, evaluation_only=True)
    with pytest.raises(EvaluationOnlyError, match=r"frozen\.parquet is kept for the gate"):
        read_instances(path)
    (found,) = read_evaluation_instances(path)
    assert found.evaluation_only
    assert (found.query, found.positives, found.weights) == (ONE.query, ONE.positives, ONE.weights)
    assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_a_training_file_is_no_evaluation_set(tmp_path: Path) -> None:
    path = tmp_path / "instances.parquet"
    write_instances([ONE], path)
    assert read_instances(path) == [ONE]
    with pytest.raises(ValueError, match="training may have seen it"):
        read_evaluation_instances(path)


def test_reformulations_come_back(tmp_path: Path) -> None:
    rows = [Reformulation(ONE.query, "bts dance", "u1"), Reformulation(Query("x"), "y", "u2")]
    write_reformulations(rows, tmp_path / "repaired.parquet")
    assert read_reformulations(tmp_path / "repaired.parquet") == rows
