"""What all kinds of signals and engines share: their names, their identity, and the choice of a class by `kind`."""

from typing import Annotated, Any

from pydantic import Discriminator, Field

Timeout = Annotated[float, Field(gt=0, le=60_000)]
"""Milliseconds."""
Identity = dict[str, Any]
"""JSON that says which model this is, and nothing of where it runs or how fast it is asked."""
SIGNAL_KINDS = ("embedded", "column", "logged", "kserve", "onnx", "cross_encoder", "clip", "python")
RECALL_KINDS = ("embedded", "qdrant", "opensearch", "redis", "python")


def by_kind(*known: str) -> Discriminator:
    """Chooses the class that is tagged with the `kind` of a setting: one of `known`, else `plugin`; default `embedded`."""

    def tag(value: Any) -> str:
        kind = value.get("kind", "embedded") if isinstance(value, dict) else getattr(value, "kind", "embedded")
        return kind if kind in known else "plugin"

    return Discriminator(tag)
