"""Policies, relevance models and specs out of the registry, checked against their hashes first."""

from pathlib import Path

from corewrite.domain import Catalogue
from corewrite.fusion import load_spec
from corewrite.pipeline.deployment import Deployment
from corewrite.registry import Kind, Registry
from corewrite.relevance import LateInteraction
from corewrite.rewriter import Rewriter, load_rewriter


def policy_of(registry: Registry, hash: str) -> Rewriter:
    """A policy.

    Raises:
        RegistryError: it is unknown, missing or damaged.
        RewriterError: it cannot be loaded.
    """
    return load_rewriter(_sound(registry, "policy", hash))


def deployment_of(registry: Registry, catalogue: Catalogue, relevance: str, spec: str) -> Deployment:
    """A relevance model and a spec over a catalogue.

    Raises:
        RegistryError: one of them is unknown, missing or damaged.
    """
    model = LateInteraction.load(_sound(registry, "relevance", relevance))
    return Deployment(catalogue, model, load_spec(_sound(registry, "spec", spec) / "fusion.yaml"))


def _sound(registry: Registry, kind: Kind, hash: str) -> Path:
    registry.verify(kind, hash)
    return registry.path(registry.artifact(kind, hash))
