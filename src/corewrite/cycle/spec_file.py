"""A fusion spec as the content of an artifact."""

from pathlib import Path

import yaml

from corewrite.fusion import FusionSpec


def write_spec(folder: Path, spec: FusionSpec) -> None:
    """Write a fusion spec as the content of an artifact."""
    (folder / "fusion.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=True), "utf-8")
