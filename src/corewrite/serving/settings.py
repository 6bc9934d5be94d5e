"""Settings of the server; imports nothing heavy, for the process that only starts the workers."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from corewrite.deployment.run_folder import documents_of_run
from corewrite.deployment.settings import RankerSettings, SignalSettings, load_secret
from corewrite.domain import Settings
from corewrite.domain.config_file import read_config
from corewrite.domain.traffic_split import STAGES_OF, Arm, ArmShares, compared_arms
from corewrite.logs.served import Texts
from corewrite.storage.run_layout import RunLayout

CONFIG_VARIABLE = "COREWRITE_SERVE_CONFIG"
"""Environment variable in which the workers find the settings, as JSON."""
MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder in which several workers count together."""
SECRET_CHARACTERS = 16
"""A secret has at least as many, or it may be found by trying."""
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
        _check_secret(
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


def _check_secret(
    whose: str, setting: str, variable: str | None, *, needed: bool, insecure: bool, risk: str, otherwise: str
) -> None:
    """Refuse what needs a secret and has none, unless it is said that none is wanted; and both at once.

    Raises:
        ValueError: it is so.
    """
    if needed and variable is None and not insecure:
        raise ValueError(
            f"{whose} has no secret, so that {risk}: name an environment variable with one in `{setting}` (openssl rand -hex "
            f"32 makes one), or say `insecure: true` where {otherwise}"
        )
    if variable is not None and insecure:
        raise ValueError(f"{setting} and insecure exclude each other: {whose} has a secret, or it has none")


class Limits(Settings):
    """What a request may be; more is refused."""

    body_bytes: int = Field(default=256 * 2**10, ge=1024)
    """Bytes of a body."""
    query_characters: int = Field(default=512, ge=1)
    """Characters of a query, of an earlier one or of a title."""
    context_items: int = Field(default=50, ge=0)
    """Earlier queries, and titles, of a context."""
    batch: int = Field(default=64, ge=1)
    """Queries of one rewrite request."""
    events: int = Field(default=1_000, ge=1)
    """Events of one request."""
    depth: int = Field(default=100, ge=1)
    """Results of a search."""
    in_flight: int = Field(default=512, ge=1)
    """Requests worked on at a time by each worker, whatever `queue_ms` lets in; more get 429."""
    queue_ms: Milliseconds | None = None
    """Wait for the ranking that is aimed at, the least of 0.1 s, milliseconds: as many searches are worked on at
    a time as keep to it, more get 429 (CoDel). None: a sixth of `deadlines.finerank`."""
    connections: int = Field(default=1024, ge=16)
    """Connections open at a time to each worker, fewer where it may open fewer files (`ulimit -n`): for a new one, that which
    has waited longest for its client is closed."""
    header_seconds: float = Field(default=5.0, gt=0, le=60)
    """How long the head of a request may take to come, seconds; then the connection is closed."""
    body_seconds: float = Field(default=10.0, gt=0, le=600)
    """How long a body may take to come, and a client to read an answer, seconds."""


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
        _check_secret(
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


class ServeSettings(Settings):
    """How `corewrite serve` serves."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """Port to listen on."""
    health_host: str | None = None
    """Address to answer probes on, where `health_port` is set; None: `host`."""
    health_port: int | None = Field(default=None, ge=1, le=65_535)
    """Port of a listener of its own for `/healthz`, `/readyz` and `/metrics`, which are then answered there and nowhere else;
    None: they are answered on `port`, beside all other requests."""
    workers: int = Field(default=1, ge=1, le=256)
    """Worker processes, each with the indexes and a rewriter process of its own."""
    drain_seconds: int = Field(default=20, ge=0)
    """How long SIGTERM waits for requests in flight."""
    hosts: tuple[str, ...] = ()
    """Names by which requests may call the server (their `Host`, without the port), others get 400; empty: any. Probes and
    metrics are answered under every name."""
    api_key_env: str | None = None
    """Environment variable with the API key; None: no key is asked for, and the admin calls are refused."""
    kill_file: Path | None = None
    """While this file exists no rewrite is used; default: `serving.killed` beside the registry."""
    enabled: bool = True
    """False: no rewrite is used, whatever the kill file says."""
    rollout: Path | None = None
    """The rollout that a cycle keeps; default: `ramp.json` beside the registry, where a run folder has it."""
    shadow: bool = False
    """Rewrites are computed and logged as counterfactuals but never used."""
    poll_seconds: float = Field(default=0.5, gt=0, le=1)
    """How often the registry, the rollout and the kill file are looked at."""
    deadlines: Deadlines = Deadlines()
    """Of the stages."""
    rewriter: RewriterSettings = RewriterSettings()
    """The rewriter's process."""
    cache: CacheSettings = CacheSettings()
    """Rewrites kept."""
    arms: ArmShares = ArmShares()
    """Who gets what."""
    limits: Limits = Limits()
    """Of requests."""
    log: LogSettings = LogSettings()
    """What is written down."""
    relevance: SignalSettings | None = None
    """Of earlier versions, read for one more release: what computes the signal `relevance`, under every champion. Now
    `ranker.signals.relevance`, which trains, gates and serves."""

    @property
    def queue_seconds(self) -> float:
        """The wait for the ranking that admission of searches aims at, seconds."""
        return (self.limits.queue_ms or self.deadlines.finerank / 6) / 1000

    @property
    def pair(self) -> tuple[Arm, Arm]:
        """The arms that are compared, control first."""
        return self.log.pair or compared_arms(self.arms)

    def api_key(self) -> str | None:
        """The key that clients send in a header; None where none is asked for.

        Raises:
            ValueError: it is not set, empty, or holds what no HTTP header does.
        """
        name = self.api_key_env
        key = load_secret(name)
        if key is not None and not key.isascii():
            raise ValueError(f"the environment variable {name} holds characters that an HTTP header cannot: use ASCII")
        return key


class ServeConfig(ServeSettings):
    """All that a server is told: its own section, and what it serves."""

    registry: Path = Path("registry")
    """Folder of the registry whose champion is served."""
    documents: Path = Path("documents.parquet")
    """Parquet of the documents."""
    ranker: RankerSettings = RankerSettings()
    """Where the champion's models and the engine run."""

    @property
    def what_ranks(self) -> RankerSettings:
        """The ranker, whichever way the settings name it."""
        if self.relevance is None:
            return self.ranker
        return self.ranker.model_copy(update={"signals": {**self.ranker.signals, "relevance": self.relevance}})

    @property
    def kill_path(self) -> Path:
        """The kill switch's file."""
        return self.kill_file or RunLayout(self.registry.parent).kill_file

    @property
    def rollout_path(self) -> Path:
        """The rollout's file."""
        return self.rollout or RunLayout(self.registry.parent).rollout_file


def secret_names(settings: BaseModel) -> set[str]:
    """Environment variables in which settings, and those within them, say that a secret stands (`..._env`)."""
    found: set[str] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name.endswith("_env") and isinstance(value, str):
            found.add(value)
        for inner in value.values() if isinstance(value, dict) else (value,):
            if isinstance(inner, BaseModel):
                found |= secret_names(inner)
    return found


class ServeSections(Settings):
    """What `corewrite serve`, `warm` and `replay` read of `corewrite.yaml`."""

    run: Path
    """Run folder whose champion is served."""
    documents: Path | None = None
    """Parquet of documents, or a folder of them; None: those that the run folder names."""
    ranker: RankerSettings = RankerSettings()
    """Where the champion's models and the engine run."""
    max_new_tokens: int | None = Field(default=None, ge=2, le=64)
    """Length limit of a rewrite, tokens; None: the default of training and gate."""
    serve: ServeSettings = ServeSettings()
    """The HTTP server."""


def load_serve_config(path: Path | None, run: Path | None = None) -> ServeConfig:
    """Read what the server needs of `corewrite.yaml`.

    Args:
        path: The file; None: there is none.
        run: Run folder, in the place of the file's, with its own documents.

    Raises:
        ConfigError: the file cannot be read, settings are missing or refused, or nothing says where the documents are.
    """
    found = read_config(path, ServeSections, run=run)
    settings = found.serve
    if settings.rewriter.max_new_tokens is None:
        rewriter = settings.rewriter.model_copy(update={"max_new_tokens": found.max_new_tokens})
        settings = settings.model_copy(update={"rewriter": rewriter})
    named = found.documents if run is None else None
    documents = documents_of_run(found.run) if named is None else named
    return ServeConfig(**dict(settings), registry=RunLayout(found.run).registry, documents=documents, ranker=found.ranker)
