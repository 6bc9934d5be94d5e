"""Settings of the deadlines, of the rewriter's process and of the cache before it."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from corewrite.deployment.settings import load_secret
from corewrite.domain import Settings
from corewrite.serving.settings.secret import SECRET_CHARACTERS, check_secret

Milliseconds = Annotated[float, Field(gt=0, le=60_000)]


class Deadlines(Settings):
    """How long after the arrival of a search each stage waits for its rewrite, and all of it takes, milliseconds."""

    recall: Milliseconds = 25.0
    """Recall starts without the rewrite after this."""
    rawrank: Milliseconds = 35.0
    """Rawrank."""
    finerank: Milliseconds = 50.0
    """Finerank: a rewrite that comes later is only remembered for the next search."""
    search: Milliseconds = 5_000.0
    """The whole search, whatever the ranker does: then it is answered by the stages that ended, or with 503. Where it is not
    set, no less than finerank's."""

    @property
    def search_seconds(self) -> float:
        """What a search may take in all, seconds."""
        return max(self.search, self.finerank) / 1000

    @model_validator(mode="after")
    def _ordered(self) -> "Deadlines":
        search = self.search if "search" in self.model_fields_set else self.finerank
        if not self.recall <= self.rawrank <= self.finerank <= search:
            raise ValueError(
                f"deadlines must not fall from stage to stage: recall {self.recall}, rawrank {self.rawrank}, "
                f"finerank {self.finerank}, search {search}"
            )
        return self


class RewriterSettings(Settings):
    """The rewriter's process and the queue before it."""

    max_batch: int = Field(default=16, ge=1, le=1024)
    """Queries decoded together at most."""
    max_wait_ms: float = Field(default=1.0, ge=0, le=1000)
    """How long an idle rewriter waits for company of the first query, milliseconds."""
    queue: int = Field(default=128, ge=1)
    """Queries waiting at most; the rest is answered without a rewrite at once."""
    stale_ms: Milliseconds = 1_000.0
    """A query that waited longer is dropped from the queue, unless its caller waits longer still: its rewrite would not even be
    worth remembering."""
    hang_seconds: float = Field(default=10.0, gt=0, le=25)
    """A process that works on one batch for longer is taken for hung, killed and started again."""
    probe_seconds: float = Field(default=5.0, gt=0, le=20)
    """An idle process rewrites a probe this often, so that a hung one is noticed without traffic, and before `/readyz` takes
    an idle one for hung."""
    load_seconds: float = Field(default=120.0, gt=0)
    """Time to start a process and load the policy at most."""
    max_new_tokens: int | None = Field(default=None, ge=2, le=64)
    """Length limit of a rewrite, tokens; None: the one that training and gate take."""
    threads: int = Field(default=1, ge=1)
    """Threads of the process."""
    blocklist: tuple[str, ...] = ()
    """Words a rewrite must not bring in: one that does, and whose query does not hold the word, is not used."""


class CacheSettings(Settings):
    """Rewrites kept."""

    size: int = Field(default=100_000, ge=0)
    """Rewrites in the memory of each worker at most."""
    seconds: float = Field(default=86_400.0, gt=0)
    """How long a rewrite is kept."""
    redis_url: str | None = None
    """A Redis shared by the workers; None: each has its own memory only."""
    redis_secret_env: str | None = None
    """Environment variable with the secret, at least 16 characters, under which names and values in the Redis are
    authenticated; all servers of one Redis, and `corewrite warm`, need the same."""
    insecure: bool = False
    """Whether a Redis without a secret is meant: whoever can write to it then decides what rewrites searches get."""
    redis_timeout_ms: Milliseconds = 10.0
    """A Redis that takes longer counts as a miss."""
    warm_folder: Path | None = None
    """Where `corewrite warm` leaves rewrites for a policy that is to be promoted."""

    @model_validator(mode="after")
    def _authentic(self) -> "CacheSettings":
        check_secret(
            "the Redis",
            "redis_secret_env",
            self.redis_secret_env,
            needed=self.redis_url is not None,
            insecure=self.insecure,
            risk="whoever can write to it decides what rewrites searches get",
            otherwise="nobody else can",
        )
        return self

    def redis_secret(self) -> str | None:
        """The secret of the Redis; None where it has none.

        Raises:
            ValueError: it is not set, or too short.
        """
        secret = load_secret(self.redis_secret_env)
        if secret is not None and len(secret) < SECRET_CHARACTERS:
            raise ValueError(
                f"the environment variable {self.redis_secret_env} holds {len(secret)} characters: a secret that cannot be "
                f"found by trying has at least {SECRET_CHARACTERS} characters (openssl rand -hex 32)"
            )
        return secret
