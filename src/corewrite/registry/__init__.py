"""Content-addressed artifacts, the champion pointer and the append-only log of decisions."""

from corewrite.registry.errors import ConflictError, RegistryError
from corewrite.registry.garbage import KEEP
from corewrite.registry.records import (
    JSON,
    KINDS,
    Artifact,
    Candidate,
    Champion,
    Decision,
    DecisionKind,
    Finding,
    Garbage,
    Kind,
)
from corewrite.registry.store import Registry

__all__ = [
    "JSON",
    "KEEP",
    "KINDS",
    "Artifact",
    "Candidate",
    "Champion",
    "ConflictError",
    "Decision",
    "DecisionKind",
    "Finding",
    "Garbage",
    "Kind",
    "Registry",
    "RegistryError",
]
