"""Where an artifact came from."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Provenance:
    """Stamped on every artifact, record and report.

    Attributes:
        code_version: Version of corewrite that made it.
        data_window: First and last timestamp of the log it came from, ISO 8601, joined by "/".
        spec_hash: Hash of the fusion spec.
        model_hash: Hash of the relevance model.
        seed: The one seed of the run.
    """

    code_version: str
    data_window: str
    spec_hash: str
    model_hash: str
    seed: int

    def as_dict(self) -> dict[str, str | int]:
        """The fields as a plain dictionary."""
        return asdict(self)
