"""The settings of a server as a whole, and reading them."""

from pathlib import Path

from pydantic import Field

from corewrite.deployment.run_folder import documents_of_run
from corewrite.deployment.settings import RankerSettings, SignalSettings, load_secret
from corewrite.domain import Settings
from corewrite.domain.config_file import read_config
from corewrite.domain.filter_settings import FilterSettings, RewriterSection
from corewrite.domain.traffic_split import Arm, ArmShares, compared_arms
from corewrite.serving.settings.limits import Limits
from corewrite.serving.settings.log import LogSettings
from corewrite.serving.settings.rewriter import CacheSettings, Deadlines, RewriterSettings
from corewrite.storage.run_layout import RunLayout

CONFIG_VARIABLE = "COREWRITE_SERVE_CONFIG"
"""Environment variable in which the workers find the settings, as JSON."""
MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder in which several workers count together."""


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
    """The whole configuration of a server: its own section, and what it serves."""

    registry: Path = Path("registry")
    """Folder of the registry whose champion is served."""
    documents: Path = Path("documents.parquet")
    """Parquet of the documents."""
    ranker: RankerSettings = RankerSettings()
    """Where the champion's models and the engine run."""
    filters: tuple[FilterSettings, ...] = ()
    """What a rewrite must never bring in."""

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
    rewriter: RewriterSection = RewriterSection()
    """What no rewrite may bring in."""
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
    return ServeConfig(
        **dict(settings),
        registry=RunLayout(found.run).registry,
        documents=documents,
        ranker=found.ranker,
        filters=found.rewriter.filters,
    )
