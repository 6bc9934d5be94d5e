"""Runs and metrics for MLflow: every decision is a run.

Needs the extra `mlflow`. The registry stays the truth; what is written here is a copy to look at.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from corewrite.domain import sha256_json
from corewrite.domain.extras import from_extra
from corewrite.registry.records import Artifact, Decision
from corewrite.registry.store import Registry

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "corewrite"
_IDENTITY = "corewrite.decision"
_ODD = re.compile(r"[^\w\-./ ]")  # MLflow refuses other characters in names
_LONGEST = 5000  # characters of a value, the least that a supported server takes
_METRICS, _OTHERS = 1000, 100  # most of a kind that it takes in one call


def export_to_mlflow(registry: Registry, uri: str, *, experiment: str = EXPERIMENT) -> int:
    """Write every decision that is not there yet as a run: evidence as metrics, artifacts' metadata as parameters.

    A number of the evidence becomes a metric named by its path, in a list by the entry's `name`, so that a gate's
    check reads `checks/reward/low`; texts and truth values become tags. Doing it again adds nothing, and a run
    that a killed export left unfinished is replaced.

    Args:
        registry: Whose decisions.
        uri: MLflow's tracking URI, a server's or a local store's.
        experiment: Name of the experiment, made where it is missing. Several registries may share it.

    Returns:
        Runs written.

    Raises:
        ImportError: MLflow is not installed.
    """
    with from_extra("mlflow", "the export needs MLflow"):
        from mlflow import MlflowClient
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    place = client.create_experiment(experiment) if found is None else found.experiment_id
    artifacts = {(a.kind, a.hash): a for a in registry.artifacts(collected=True)}
    written = 0
    for decision in registry.decisions():
        # From content alone, so that a registry that was moved or copied stays the same one.
        identity = sha256_json({"number": decision.number, "time": decision.time, "about": decision.hashes})
        runs = client.search_runs([place], f"tags.`{_IDENTITY}` = '{identity}'")
        if any(run.info.status == "FINISHED" for run in runs):
            continue
        for run in runs:
            client.delete_run(run.info.run_id)
        _write(client, place, identity, decision, [artifacts[item] for item in decision.hashes.items()])
        written += 1
    return written


def _write(client: "MlflowClient", place: str, identity: str, decision: Decision, about: list[Artifact]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    time = round(datetime.fromisoformat(decision.time).timestamp() * 1000)
    tags: dict[str, Any] = {
        "verdict": decision.verdict,
        "reason": decision.reason,
        "previous": decision.previous,
        "code_version": decision.code_version,
    }
    evidence: dict[str, Any] = dict(_leaves(decision.evidence, ""))
    numbers = {name: float(value) for name, value in evidence.items() if _is_number(value)}
    tags |= {f"evidence/{name}": value for name, value in evidence.items() if name not in numbers}
    params: dict[str, Any] = {f"{a.kind}/hash": a.hash for a in about}
    for artifact in about:
        params |= _leaves(artifact.metadata, f"{artifact.kind}/metadata")
    run = client.create_run(
        place, start_time=time, run_name=f"{decision.number} {decision.verdict}", tags={_IDENTITY: identity}
    )
    for metrics in _parts([Metric(name, value, time, 0) for name, value in numbers.items()], _METRICS):
        client.log_batch(run.info.run_id, metrics=metrics)
    for some in _parts([Param(name, _text(value)) for name, value in params.items()], _OTHERS):
        client.log_batch(run.info.run_id, params=some)
    for few in _parts([RunTag(name, _text(value)) for name, value in tags.items()], _OTHERS):
        client.log_batch(run.info.run_id, tags=few)
    client.set_terminated(run.info.run_id, end_time=time)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every scalar with its path."""
    if isinstance(value, Mapping):
        below = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        named = [isinstance(part, Mapping) and isinstance(part.get("name"), str) for part in value]
        below = [(str(part["name"]) if name else str(i), part) for i, (name, part) in enumerate(zip(named, value, strict=True))]
    else:
        yield path or "evidence", value
        return
    for key, part in below:
        key = _ODD.sub("_", key).replace("/", "_").strip(".") or "_"
        yield from _leaves(part, f"{path}/{key}" if path else key)


def _parts(items: Sequence[Any], length: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + length] for i in range(0, len(items), length))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    return str(value)[:_LONGEST]
