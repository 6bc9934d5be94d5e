"""Settings of the log of what was served."""

from pathlib import Path

from pydantic import Field, model_validator

from corewrite.domain import Settings
from corewrite.domain.traffic_split import STAGES_OF, Arm
from corewrite.logs.served import Texts
from corewrite.serving.settings.secret import check_secret


class LogSettings(Settings):
    """The UBI log of what was served."""

    folder: Path | None = None
    """Where it goes; None: nothing is logged."""
    seal_to: Path | None = None
    """Public key file (`corewrite log keys`): texts stand in the log sealed, readable with the private key alone, which only
    the cycle needs."""
    query_text: bool = False
    """Whether texts of users stand in it; otherwise hashes do, from which nothing can be learnt: training, rollouts,
    experiments, replay and warming need the texts."""
    salt_env: str | None = None
    """Environment variable with the secret that keys the hashes of clients and texts; at least 16 characters, and the same for
    as long as logs are to know their clients again."""
    insecure: bool = False
    """Whether a log without a secret is meant: its hashes are then keyed by a constant that everybody knows, so that whoever
    can guess an id or a text can find it there."""
    queue: int = Field(default=10_000, ge=1)
    """Entries waiting for the disk at most; the rest is counted and dropped."""
    rotate_bytes: int = Field(default=256 * 2**20, ge=2**16)
    """A file that reaches this size is synced to the disk and the next one begun."""
    retention_days: float | None = Field(default=None, gt=0)
    """Files of the log in `folder` (`ubi-*.ndjson`) are removed when they were last written to so many days ago, and a new one
    is begun at least daily; None: they stay until somebody removes them, 1 to 2 kB a search."""
    counterfactual_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the clients for whose searches the answers of both arms that are compared are computed, and in the shadow stage
    of a rollout the share of all searches for which the new champion's is. A launch needs 1."""
    pair: tuple[Arm, Arm] | None = None
    """The arms that are compared, control first; None: the two with the most clients, and while a rollout is under way its two
    versions."""

    @model_validator(mode="after")
    def _differs(self) -> "LogSettings":
        if self.pair is not None and len(STAGES_OF[self.pair[0]]) >= len(STAGES_OF[self.pair[1]]):
            raise ValueError(
                f"pair {', '.join(self.pair)}: name control first, then a treatment that uses the rewrite at more stages"
            )
        return self

    @property
    def texts(self) -> Texts:
        """How users' texts stand in the log."""
        return "sealed" if self.seal_to is not None else "plain" if self.query_text else "hashed"

    @model_validator(mode="after")
    def _keyed(self) -> "LogSettings":
        check_secret(
            "the log",
            "salt_env",
            self.salt_env,
            needed=self.folder is not None,
            insecure=self.insecure,
            risk="the hashes of clients and texts in it could be undone by guessing",
            otherwise="nobody's privacy depends on it",
        )
        return self

    @model_validator(mode="after")
    def _one_way(self) -> "LogSettings":
        if self.seal_to is not None and self.query_text:
            raise ValueError("query_text and seal_to exclude each other: texts stand in the log as they are, or sealed")
        return self
