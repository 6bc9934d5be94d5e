"""`corewrite serve`, `corewrite warm`, `corewrite replay`."""

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from corewrite.cli.common import Exit, open_registry, print_json, progress_console, reported_errors, say

if TYPE_CHECKING:
    from corewrite.serving.settings import ServeConfig

SERVE_EXAMPLES = (
    "Examples: `corewrite serve --run runs/demo` · `corewrite serve --run runs/demo --port 9000 --workers 2` · "
    "`corewrite serve --config corewrite.yaml` (docs/deploy.md lists the settings)"
)
WARM_EXAMPLES = (
    "Examples: `corewrite warm --from-log runs/demo/log --top 10000 --policy 3fa9c1 --config corewrite.yaml` · "
    "`corewrite warm --from-log week.ndjson.gz --top 1000 --run runs/demo`"
)
REPLAY_EXAMPLES = (
    "Examples: `corewrite replay runs/demo/log --run runs/demo` · `corewrite replay ubi.ndjson --config corewrite.yaml` · "
    "`corewrite replay production.ndjson --config corewrite.yaml` · `corewrite replay production.ndjson --spec fusion.yaml`"
)
_RUN = typer.Option(None, help="Run folder with the registry; default: the settings'.")
_CONFIG = typer.Option(None, "--config", "-c", help="Settings, YAML (docs/settings.md).")


def serve(
    run: Path | None = _RUN,
    config: Path | None = _CONFIG,
    host: str | None = typer.Option(None, help="Address to listen on; default: the settings', 127.0.0.1."),
    port: int | None = typer.Option(None, min=0, max=65_535, help="Port; default: the settings', 8080."),
    workers: int | None = typer.Option(None, min=1, help="Worker processes; default: the settings', 1."),
    insecure: bool = typer.Option(
        False,
        "--insecure",
        help="Listen without an API key on an address that other machines reach: something else asks for one.",
    ),
) -> None:
    """Serve the champion over HTTP, follow the registry, and drain on SIGTERM."""
    with reported_errors():
        _needs_serving()
        settings = _settings(run, config)
        update = {"host": host, "port": port, "workers": workers}
        settings = settings.model_copy(update={k: v for k, v in update.items() if v is not None})
        if not insecure:
            _refuse_open(settings)
        _run_server(settings)


def warm(
    from_log: list[Path] = typer.Option(help="UBI log with texts: a file, or a folder of them. Repeatable."),
    top: int = typer.Option(10_000, min=1, help="Queries, with their contexts, at most."),
    policy: str | None = typer.Option(None, help="Hash of the policy to be promoted, or its start; default: the champion's."),
    run: Path | None = _RUN,
    config: Path | None = _CONFIG,
    as_json: bool = typer.Option(False, "--json", help="Print what was done as JSON."),
) -> None:
    """Rewrite the head queries of a log with a policy before it is promoted: the cache is warm when it takes over."""
    import asyncio

    with reported_errors():
        _needs_serving()
        from corewrite.logs.files import log_files
        from corewrite.registry import Registry
        from corewrite.report.progress import ProgressSteps
        from corewrite.rewriter import MAX_NEW_TOKENS, load_rewriter
        from corewrite.serving.warm import head_queries, write_warm
        from corewrite.serving.warm import warm as rewrites_of

        settings = _settings(run, config)
        cache = settings.cache
        if cache.redis_url is None and cache.warm_folder is None:
            raise ValueError("nothing to fill: set cache.redis_url or cache.warm_folder in the settings")
        registry = Registry(settings.registry)
        champion = registry.champion()
        if policy is None and champion is None:
            raise ValueError(f"{settings.registry} has no champion: name the policy with --policy")
        artifact = registry.find(policy or champion.policy, "policy")  # type: ignore[union-attr]  # one of the two is there
        registry.verify("policy", artifact.hash)
        steps = ProgressSteps(progress_console(quiet=as_json))
        with steps.step("read the log"):
            queries = head_queries([file for path in from_log for file in log_files(path)], top)
        with steps.step("rewrite") as progress:
            found = rewrites_of(
                load_rewriter(registry.path(artifact)),
                artifact.hash,
                queries,
                max_new_tokens=settings.rewriter.max_new_tokens or MAX_NEW_TOKENS,
                progress=progress,
            )
        done: dict[str, Any] = {"policy": artifact.hash, "queries": len(queries), "rewrites": len(found)}
        if cache.warm_folder is not None:
            done["file"] = str(write_warm(cache.warm_folder, artifact.hash, found))
        if cache.redis_url is not None:
            failures = asyncio.run(_into_redis(settings, found))
            done["redis_failures"] = failures
            if failures:
                raise ValueError(f"{failures} writes to the Redis failed: is it up?")
    if as_json:
        print_json(done)
    else:
        say(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in done.items()))


def replay(
    log: Path = typer.Argument(
        help="UBI log, a file or a folder of them: of the server, or of your own engine with query_attributes.ranking "
        "(docs/backends.md)."
    ),
    run: Path | None = _RUN,
    config: Path | None = _CONFIG,
    spec: Path | None = typer.Option(
        None, help="Fusion spec, for a log of your own engine; default: the settings' ranker.spec."
    ),
    least: float = typer.Option(0.999, min=0, max=1, help="Exit code 1 where the share that agrees is lower."),
    as_json: bool = typer.Option(False, "--json", help="Print what was found as JSON."),
) -> None:
    """Recompute logged searches: the share that agrees within 1e-6 says whether training sees what serving does.

    A log of `corewrite serve` is recomputed from the models on. A log of your own engine, where no search is of
    `corewrite serve`, holds signals, factors and scores: there the fusion spec is checked on the logged signals.
    """
    from dataclasses import asdict

    with reported_errors():
        from corewrite.deployment.replay_logged import has_rankings

        if has_rankings(log):
            _replay_rankings(log, config, spec, least, as_json)
            return
        if spec is not None:
            raise ValueError(
                f"{log} holds no query_attributes.ranking, or searches of `corewrite serve`, which name their own specs: "
                "leave --spec out"
            )
        _needs_serving()
        from corewrite.deployment.documents import open_documents
        from corewrite.deployment.open import RankerOpener
        from corewrite.deployment.replay import replay_log
        from corewrite.domain.config_file import read_config
        from corewrite.logs.privacy import PrivacySections
        from corewrite.logs.sealing import load_keys
        from corewrite.registry import Registry
        from corewrite.report.progress import ProgressSteps

        settings = _settings(run, config)
        keys = None if config is None else read_config(config, PrivacySections).privacy.keys
        steps = ProgressSteps(progress_console(quiet=as_json))
        documents = open_documents(settings.documents, settings.what_ranks, steps)
        with steps.step("replay") as progress:
            opener = RankerOpener(settings.what_ranks, documents, settings_rank=settings.relevance is not None)
            unseal = None if keys is None else load_keys(keys).open_line
            found = replay_log(log, Registry(settings.registry), opener, unseal=unseal, progress=progress)
    if as_json:
        print_json({"log": "served", **asdict(found)})
    else:
        f = found.factors
        say(
            f"{f.share_agreeing:.4%} of {f.compared} factors agree within 1e-6 (largest difference {f.worst:.2g}); "
            f"{found.same_lists} of {found.searches} lists are the same; "
            f"{found.passed_over} other lines (events, searches without texts)"
        )
        for name, one in sorted(found.by_factor.items(), key=lambda x: x[1].share_agreeing):
            if one.share_agreeing < 1:
                say(f"  {name}: {one.share_agreeing:.4%} of {one.compared}, largest difference {one.worst:.2g}")
    if found.factors.share_agreeing < least:
        raise typer.Exit(Exit.FAILED)


def _replay_rankings(log: Path, config: Path | None, spec_file: Path | None, least: float, as_json: bool) -> None:
    """Check a fusion spec on the rankings that the user's own engine logged.

    Raises:
        typer.Exit: less agrees than `least`.
        ValueError: nothing names the spec, or the log cannot be used.
    """
    from dataclasses import asdict

    from corewrite.deployment.replay_logged import replay_rankings
    from corewrite.deployment.settings import RankerSection
    from corewrite.domain.config_file import read_config
    from corewrite.fusion import default_spec, load_spec
    from corewrite.report.progress import ProgressSteps

    if spec_file is None and config is None:
        raise ValueError(f"{log} was written by your own engine: say which fusion spec it ranks by, --spec or --config")
    if spec_file is None:
        spec_file = read_config(config, RankerSection).ranker.spec
    spec = default_spec() if spec_file is None else load_spec(spec_file)
    with ProgressSteps(progress_console(quiet=as_json)).step("replay") as progress:
        found = replay_rankings(log, spec, progress=progress)
    if as_json:
        print_json({"log": "ranking", "share_agreeing": found.share_agreeing, **asdict(found)})
    else:
        say(
            f"rankings of your own engine, checked by their logged signals on {spec_file or 'the packaged spec'} "
            f"({found.spec_hash[:12]}); {found.passed_over} lines without one passed over"
        )
        compared = {
            name: found.by_factor[name] for name in sorted(found.by_factor, key=lambda n: found.by_factor[n].share_agreeing)
        }
        for name, one in {**({} if found.scores is None else {"scores": found.scores}), **compared}.items():
            say(f"  {name}: {one.share_agreeing:.4%} of {one.compared} agree within 1e-6, largest difference {one.worst:.2g}")
        say(f"  {found.same_order} of {found.searches} lists stand in the order of the spec")
        for name, exponent in found.exponents.items():
            say(f"  {name}: the logged scores ask for exponent {exponent:g}")
        for name in found.unchecked:
            say(f"  {name}: not checked, no line has this signal under a rewrite")
        for reason, count in found.unusable.items():
            say(f"  {count} rankings cannot be recomputed: {reason}")
    if found.share_agreeing < least:
        raise typer.Exit(Exit.FAILED)


def _settings(run: Path | None, config: Path | None) -> "ServeConfig":
    """The settings of a file, of a run folder, or of a file with its registry and documents those of a run folder."""
    from corewrite.serving.settings import load_serve_config

    if run is None and config is None:
        raise ValueError("say what to serve: --run, --config, or both")
    if run is not None:
        open_registry(run)  # says so where there is none
    return load_serve_config(config, run)


def _refuse_open(settings: "ServeConfig") -> None:
    """Refuse to let everybody in who can reach this machine.

    Raises:
        ValueError: the host is reached from other machines, and no key is asked for.
    """
    if settings.api_key_env is None and not _is_of_this_machine(settings.host):
        raise ValueError(
            f"host {settings.host} is reached from other machines, and no API key is asked for: name the environment variable "
            "that has one in `serve.api_key_env`, or start with --insecure where something in front of it asks for one"
        )


def _is_of_this_machine(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in _addresses(host, None))


def _addresses(host: str, port: int | None) -> list[Any]:
    """Where `host` listens, as `socket.getaddrinfo` says it.

    Raises:
        ValueError: it is no name of an address.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ValueError(f"host {host}: {error.strerror}") from error


def _needs_serving() -> None:
    missing = [name for name in ("fastapi", "prometheus_client", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ValueError(f"{missing[0]} is missing: pip install 'corewrite[serve]'")


def _memory() -> str | None:
    """Where several workers count: a folder in memory, where there is one. Writing to a mapped file on a full disk is fatal."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _run_server(settings: "ServeConfig") -> None:
    import uvicorn

    from corewrite.deployment.documents import open_documents
    from corewrite.deployment.inputs import check_inputs
    from corewrite.deployment.settings import load_secret
    from corewrite.report.progress import ProgressSteps
    from corewrite.serving.protocol import allow_open_files, uvicorn_options
    from corewrite.serving.settings import CONFIG_VARIABLE, MULTIPROCESS_VARIABLE

    _is_free(settings.host, settings.port, "name another with --port (or `serve.port`)")
    if settings.health_port is not None:
        if settings.health_port == settings.port:
            raise ValueError(f"port {settings.port} is both `serve.port` and `serve.health_port`: name another for one of them")
        _is_free(settings.health_host or settings.host, settings.health_port, "name another in `serve.health_port`")
    allow_open_files(settings.limits)
    log = settings.log
    check_inputs(documents=settings.documents, public_key=log.seal_to, writes=[] if log.folder is None else [log.folder])
    with tempfile.TemporaryDirectory(prefix="corewrite-metrics-", dir=_memory()) as folder:
        if settings.workers > 1 or not settings.what_ranks.needs_documents_in_memory:
            # Documents on disk are converted here, where it can be watched. What is wrong is told here, in words: a worker
            # that does not start is started again for ever.
            open_documents(settings.documents, settings.what_ranks, ProgressSteps(progress_console(quiet=False)))
        if settings.workers > 1:
            settings.api_key()
            load_secret(settings.log.salt_env)
        # Workers start from here and read both. prometheus_client reads its own where it is imported, and keeps a user's.
        read = {CONFIG_VARIABLE: settings.model_dump_json(by_alias=True)}  # inputs are named by an alias
        if settings.workers > 1 and MULTIPROCESS_VARIABLE not in os.environ:
            read[MULTIPROCESS_VARIABLE] = folder
        # uvicorn sends itself the signal again once it has drained: that must end in exit code 0, and through `finally`.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        with _environment(read):
            try:
                uvicorn.run(
                    "corewrite.serving.app:from_environment",
                    factory=True,
                    host=settings.host,
                    port=settings.port,
                    workers=settings.workers,
                    timeout_graceful_shutdown=settings.drain_seconds,
                    **uvicorn_options(),
                )
            except SystemExit as ended:
                # uvicorn's code for a server that did not start is 3, which means "holds" here; it has said why.
                raise typer.Exit(Exit.OK if not ended.code else Exit.FAILED) from None


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for what starts from here, taken away again."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _is_free(host: str, port: int, otherwise: str) -> None:
    """Check that a port can be listened on, before models are opened for minutes.

    Raises:
        OSError: it is taken, or not allowed.
    """
    family, kind, protocol, _, address = _addresses(host, port)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise OSError(f"port {port} of {host}: {error.strerror}; {otherwise}") from error


async def _into_redis(settings: "ServeConfig", found: dict[str, tuple[str, ...]]) -> int:
    from corewrite.serving.cache import open_redis

    shared = open_redis(settings.cache, timeout_ms=5_000)
    assert shared is not None
    await shared.put_many(list(found.items()))
    await shared.close()
    return shared.failures
