"""Content-addressed artifacts, the champion pointer and the append-only log of decisions."""

from corewrite.registry.errors import ConflictError, RegistryError
from corewrite.registry.records import (
    JSON,
    KINDS,
    Artifact,
    Candidate,
    Champion,
    Decision,
    Finding,
    Garbage,
    Kind,
    Verdict,
)
from corewrite.registry.store import KEEP, Registry

__all__ = [
    "JSON",
    "KEEP",
    "KINDS",
    "Artifact",
    "Candidate",
    "Champion",
    "ConflictError",
    "Decision",
    "Finding",
    "Garbage",
    "Kind",
    "Registry",
    "RegistryError",
    "Verdict",
]
