"""`corewrite serve`."""

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from corewrite.cli.common import Exit, progress_console, reported_errors
from corewrite.cli.serve_settings import CONFIG_OPTION, RUN_OPTION, read_serve_settings

if TYPE_CHECKING:
    from corewrite.serving.settings import ServeConfig

SERVE_EXAMPLES = (
    "Examples: `corewrite serve --run runs/demo` · `corewrite serve --run runs/demo --port 9000 --workers 2` · "
    "`corewrite serve --config corewrite.yaml` (docs/how-to/serve.md lists the settings)"
)


def serve(
    run: Path | None = RUN_OPTION,
    config: Path | None = CONFIG_OPTION,
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
        from corewrite.domain.extras import require_extras

        require_extras("serve")
        settings = read_serve_settings(run, config)
        update = {"host": host, "port": port, "workers": workers}
        settings = settings.model_copy(update={k: v for k, v in update.items() if v is not None})
        if not insecure:
            _refuse_open(settings)
        _run_server(settings)


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


def _memory() -> str | None:
    """Where several workers count: a folder in memory, where there is one. Writing to a mapped file on a full disk is fatal."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _run_server(settings: "ServeConfig") -> None:
    import uvicorn

    from corewrite.deployment.documents import open_documents
    from corewrite.deployment.inputs import check_inputs
    from corewrite.deployment.settings import load_secret
    from corewrite.domain.filters import load_filters
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
    load_filters(settings.filters)
    check_inputs(documents=settings.documents, public_key=log.seal_to, writes=[] if log.folder is None else [log.folder])
    with tempfile.TemporaryDirectory(prefix="corewrite-metrics-", dir=_memory()) as folder:
        if settings.workers > 1 or not settings.what_ranks.needs_documents_in_memory:
            # Documents on disk are converted here, where it can be watched. What is wrong is reported here, in words: a worker
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
