"""What was mined from a log, as Parquet: instances, reformulations; and sets that only the gate may read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.domain import TrainingInstance, query_columns, query_from_row
from corewrite.logs.mining import Reformulation
from corewrite.storage.durable import make_private, naming

_USE, _GATE_ONLY = b"corewrite.use", b"evaluation only"


class EvaluationOnlyError(PermissionError):
    """A set kept for the gate was about to be trained on."""


def write_instances(instances: Sequence[TrainingInstance], path: Path, *, evaluation_only: bool = False) -> None:
    """Write instances as Parquet.

    Args:
        instances: What to write.
        path: The file.
        evaluation_only: Mark the file as the gate's: `read_instances` refuses it, and only its owner may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "instance_id": [x.instance_id for x in instances],
            "user_id": [x.user_id for x in instances],
            **query_columns([x.query for x in instances]),
            "positives": [list(x.positives) for x in instances],
            "gains": [list(x.gains) for x in instances],
            "negatives": [list(x.negatives) for x in instances],
            "weights": [list(x.weights) for x in instances],
            "timestamp": [x.timestamp for x in instances],
        }
    )
    with naming(path):
        pq.write_table(table.replace_schema_metadata({_USE: _GATE_ONLY}) if evaluation_only else table, make_private(path))
    if evaluation_only:
        path.chmod(0o400)


def read_instances(path: Path) -> list[TrainingInstance]:
    """Read what `write_instances` wrote.

    Raises:
        EvaluationOnlyError: the file is the gate's.
    """
    if _gate_only(path):
        raise EvaluationOnlyError(f"{path} is kept for the gate: training on it would blind the gate; train on other instances")
    return _read(path)


def read_evaluation_instances(path: Path) -> list[TrainingInstance]:
    """Read a set of the gate's; its instances carry the mark, so that training refuses them too.

    Raises:
        ValueError: the file is not marked as the gate's: training may have seen it.
    """
    if not _gate_only(path):
        raise ValueError(f"{path} is not marked as the gate's, training may have seen it: write it with evaluation_only=True")
    return [replace(x, evaluation_only=True) for x in _read(path)]


def write_reformulations(reformulations: Sequence[Reformulation], path: Path) -> None:
    """Write reformulations as Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"user_id": [r.user_id for r in reformulations], "target": [r.target for r in reformulations]}
    with naming(path):
        pq.write_table(pa.table({**columns, **query_columns([r.query for r in reformulations])}), make_private(path))


def read_reformulations(path: Path) -> list[Reformulation]:
    """Read what `write_reformulations` wrote."""
    return [Reformulation(query_from_row(r), r["target"], r["user_id"]) for r in pq.read_table(path).to_pylist()]


def _gate_only(path: Path) -> bool:
    return (pq.read_schema(path).metadata or {}).get(_USE) == _GATE_ONLY


def _read(path: Path) -> list[TrainingInstance]:
    return [
        TrainingInstance(
            r["instance_id"],
            r["user_id"],
            query_from_row(r),
            tuple(r["positives"]),
            tuple(r["gains"]),
            tuple(r["negatives"]),
            tuple(r["weights"]),
            r["timestamp"],
        )
        for r in pq.read_table(path).to_pylist()
    ]
