"""The copy in MLflow."""

from datetime import datetime
from pathlib import Path

import pytest

from corewrite.registry import Candidate, Registry
from corewrite.registry.mlflow_export import _IDENTITY, export_to_mlflow

mlflow = pytest.importorskip("mlflow")
EVIDENCE = {
    "verdict": "PROMOTE",
    "users": 900,
    "checks": [
        {"name": "reward", "low": 0.25, "high": 0.5, "passed": True, "p": None},
        {"name": "odd:name/x", "low": float(-1)},
    ],
    "pairs": [1, [2.5]],
}


def save(registry: Registry, kind: str, metadata: dict) -> str:
    return registry.save(kind, lambda folder: (folder / "a.txt").write_text(kind) and None, metadata).hash  # type: ignore[arg-type]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "registry")
    policy = save(registry, "policy", {"provenance": {"seed": 7, "window": "w"}, "long": "x" * 9000})
    new = Candidate(policy, save(registry, "relevance", {}), save(registry, "spec", {}))
    registry.promote(new, expected=None, reason="better", evidence=EVIDENCE)
    registry.record("hold", new, "few users", None)
    return registry


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "mlflow.MlflowClient":
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # without SQLAlchemy there is no other local store
    return mlflow.MlflowClient(tracking_uri=(tmp_path / "store").as_uri())


def runs(client: "mlflow.MlflowClient") -> list:
    place = client.get_experiment_by_name("corewrite").experiment_id
    return sorted(client.search_runs([place]), key=lambda run: run.info.run_name)


def test_every_decision_is_a_run_with_its_numbers(registry: Registry, client: "mlflow.MlflowClient") -> None:
    assert export_to_mlflow(registry, client.tracking_uri) == 2
    first, second = runs(client)
    decision = registry.decisions()[0]
    assert first.data.metrics == {
        "users": 900, "checks/reward/low": 0.25, "checks/reward/high": 0.5, "checks/odd_name_x/low": -1, "pairs/0": 1,
        "pairs/1/0": 2.5,
    }  # fmt: skip
    assert first.data.params == {
        **{f"{kind}/hash": hash for kind, hash in decision.hashes.items()},
        "policy/metadata/provenance/seed": "7",
        "policy/metadata/provenance/window": "w",
        "policy/metadata/long": "x" * 5000,
    }
    tags = first.data.tags
    assert (tags["verdict"], tags["reason"], tags["evidence/checks/reward/passed"]) == ("promote", "better", "True")
    assert first.info.start_time == round(datetime.fromisoformat(decision.time).timestamp() * 1000)
    assert (second.info.run_name, second.data.metrics, second.data.tags["previous"]) == ("2 hold", {}, "1")


def test_doing_it_again_adds_only_what_is_new(registry: Registry, client: "mlflow.MlflowClient") -> None:
    export_to_mlflow(registry, client.tracking_uri)
    moved = registry.root.rename(registry.root.with_name("moved"))
    registry = Registry(moved)
    assert export_to_mlflow(registry, client.tracking_uri) == 0
    registry.quarantine("policy", registry.save("policy", lambda f: (f / "b.txt").write_text("b") and None, {}).hash, "bad")
    assert export_to_mlflow(registry, client.tracking_uri) == 1
    assert [run.info.run_name for run in runs(client)] == ["1 promote", "2 hold", "3 quarantine"]


def test_a_run_that_was_cut_off_is_replaced(registry: Registry, client: "mlflow.MlflowClient") -> None:
    export_to_mlflow(registry, client.tracking_uri)
    first, _ = runs(client)
    place, identity = first.info.experiment_id, first.data.tags[_IDENTITY]
    client.delete_run(first.info.run_id)
    client.create_run(place, tags={_IDENTITY: identity})
    assert export_to_mlflow(registry, client.tracking_uri) == 1
    again, _ = runs(client)
    assert again.data.metrics == first.data.metrics
    assert len(runs(client)) == 2
