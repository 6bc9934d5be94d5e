"""Policies, relevance models and specs out of the registry, checked against their hashes first."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.open import RankerOpener
from corewrite.fusion import load_spec
from corewrite.registry import Kind, Registry
from corewrite.rewriter import Rewriter, load_rewriter


def load_policy(registry: Registry, hash: str) -> Rewriter:
    """A policy.

    Raises:
        RegistryError: it is unknown, missing or damaged.
        RewriterError: it cannot be loaded.
    """
    return load_rewriter(_sound(registry, "policy", hash))


def load_deployment(registry: Registry, opener: RankerOpener, relevance: str, spec: str) -> Deployment:
    """A relevance artifact and a spec, opened.

    Raises:
        RegistryError: one of them is unknown, missing or damaged.
        ScorerUnavailableError, ScorerMismatchError, EngineError, ValueError: see `RankerOpener.open` and `Deployment`.
    """
    folder = _sound(registry, "relevance", relevance)
    ranker = opener.open(relevance, folder, registry.artifact("relevance", relevance).metadata)
    return Deployment(ranker, load_spec(_sound(registry, "spec", spec) / "fusion.yaml"))


def recent_champions(registry: Registry, records: Sequence[Mapping[str, Any]], now: str) -> list[Rewriter]:
    """The policies that served after each of some cycles, but that of hash `now` and those that `gc` removed.

    Args:
        registry: Where they are.
        records: Of the cycles.
        now: The present champion's policy.
    """
    return _policies(registry, (r["policy"] for r in records), now)


def first_champion(registry: Registry, now: str) -> Rewriter | None:
    """The policy that all champions come from; None where it is that of hash `now`, or `gc` removed it."""
    promoted = [d.candidate.policy for d in registry.decisions() if d.verdict == "promote" and d.candidate]
    found = _policies(registry, promoted[:1], now)
    return found[0] if found else None


def _policies(registry: Registry, hashes: Iterable[str | None], now: str) -> list[Rewriter]:
    there = {a.hash for a in registry.artifacts() if a.kind == "policy"}
    return [load_policy(registry, h) for h in dict.fromkeys(hashes) if h is not None and h != now and h in there]


def _sound(registry: Registry, kind: Kind, hash: str) -> Path:
    registry.verify(kind, hash)
    return registry.path(registry.artifact(kind, hash))
