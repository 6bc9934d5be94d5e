"""Which ranker a relevance artifact stands for, where not all of it is the bundled model."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from corewrite.deployment.fingerprint import Fingerprint
from corewrite.domain import Settings
from corewrite.registry import RegistryError

_FILE = "ranker.json"


class PinnedRanker(Settings):
    """The pin manifest of a relevance artifact.

    Attributes:
        format: Of this file.
        signals: By name of the signal, which model computes it: its settings, less where it runs and how it is asked.
        recall: Which engine recalls.
        fingerprints: By name of the signal, what its model says of fixed pairs.
    """

    format: Literal[1] = 1
    signals: dict[str, dict[str, Any]]
    recall: dict[str, Any]
    fingerprints: dict[str, Fingerprint] = Field(default_factory=dict)

    @property
    def identity(self) -> dict[str, Any]:
        """All but the fingerprints: whether settings mean this ranker."""
        return self.model_dump(mode="json", include={"signals", "recall"})

    def save(self, folder: Path) -> None:
        """Write the manifest into an artifact's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FILE).write_text(self.model_dump_json(indent=1) + "\n", "utf-8")


def load_pins(folder: Path) -> PinnedRanker | None:
    """The manifest of a relevance artifact; None where it is the bundled model alone.

    Raises:
        RegistryError: it cannot be read.
    """
    file = folder / _FILE
    if not file.is_file():
        return None
    try:
        return PinnedRanker.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise RegistryError(f"{file} is no pin manifest of this version of corewrite: {error}") from error
