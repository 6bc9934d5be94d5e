"""Serve the ranker by a real model server that speaks the Open Inference Protocol (KServe v2) over HTTP, on the loopback.

    python -m benchmarks.foreign_ranker.serve REPOSITORY [--server triton|mlserver] [--port 0] [--version 1 --version 2]

REPOSITORY holds a folder of `export_onnx` for each version: 1/, 2/, ... The first line printed is JSON with the address, once
the server is ready. It stops on SIGTERM, on Ctrl-C, and when the process that started it is gone.

The server's packages clash with ours (MLServer wants an older FastAPI, Triton's an older NumPy) and live in environments of
their own: `make kserve` makes them.
"""

import argparse
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODEL = "ranker"
"""Name under which the server has the model."""
ENVIRONMENTS = Path(__file__).parents[2] / ".kserve"
"""Where `make kserve` makes the servers' environments: `triton` and `mlserver`."""
_CODE = Path(__file__).parent / "servers"
_START_SECONDS = 90.0
_LOOPBACK = "127.0.0.1"


class ServerMissingError(RuntimeError):
    """The server is not installed, or cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class RankerServer:
    """A server that is ready.

    Attributes:
        url: Its address, such as `http://127.0.0.1:40123`.
        model: Name of the model.
        versions: Versions that it has.
        process_id: Of the server.
    """

    url: str
    model: str
    versions: tuple[str, ...]
    process_id: int


@dataclass(frozen=True)
class _Prepared:
    command: list[str]
    environment: dict[str, str]


@contextmanager
def run_server(
    repository: Path, *, server: str = "triton", versions: Sequence[str] | None = None, port: int = 0,
    environments: Path = ENVIRONMENTS,
) -> Iterator[RankerServer]:  # fmt: skip
    """A server of the versions in `repository`, ready to answer; it is stopped at the end.

    Args:
        repository: Holds a folder of `export_onnx` for each version.
        server: `triton` or `mlserver`.
        versions: Those to serve; None: all.
        port: Of the loopback; 0: a free one.
        environments: Where `make kserve` put the servers.

    Raises:
        ValueError: there is no server of that name.
        ServerMissingError: the server cannot run here.
        FileNotFoundError: a version is not in the repository.
        RuntimeError: the server ended or did not get ready; the message has the end of its log.
    """
    if server not in _SERVERS:
        raise ValueError(f"there is no server {server!r}: choose one of {', '.join(sorted(_SERVERS))}")
    chosen = _versions(repository, versions)
    port = port or _free_port()
    url = f"http://{_LOOPBACK}:{port}"
    with tempfile.TemporaryDirectory(prefix="foreign-ranker-") as temporary:
        folder = Path(temporary)
        prepared = _SERVERS[server](repository.resolve(), chosen, port, environments / server, folder)
        log = folder / "server.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                prepared.command, env=prepared.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                cwd=folder, start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        try:
            _wait_until_ready(url, chosen, process, log)
            yield RankerServer(url, MODEL, chosen, process.pid)
        finally:
            _stop(process)


def _versions(repository: Path, wanted: Sequence[str] | None) -> tuple[str, ...]:
    there = sorted((p.parent.name for p in repository.glob("*/model.onnx") if p.parent.name.isdigit()), key=int)
    chosen = tuple(wanted or there)
    missing = [v for v in chosen if v not in there]
    if missing or not chosen:
        raise FileNotFoundError(f"{repository} has no version {', '.join(missing) or 'at all'}: it has {there or 'none'}")
    return chosen


def _triton(repository: Path, versions: Sequence[str], port: int, environment: Path, folder: Path) -> _Prepared:
    packages = _site_packages(environment)
    wheel = packages / "pytriton" / "tritonserver"
    if not wheel.is_dir():
        raise ServerMissingError(f"{environment} has no nvidia-pytriton: run `make kserve`")
    python = _site_packages(environment).parent.name.removeprefix("python")
    stub = wheel / "python_backend_stubs" / python / "triton_python_backend_stub"
    try:
        ctypes.CDLL(f"libpython{python}.so.1.0")
    except OSError as error:
        raise ServerMissingError(f"Triton's Python backend needs libpython{python}.so.1.0 of the system: {error}") from error
    backend = folder / "backends" / "python"
    shutil.copytree(wheel / "backends" / "python", backend)
    shutil.copy2(stub, backend)
    for version in versions:
        place = folder / "models" / MODEL / version
        place.mkdir(parents=True)
        shutil.copy2(_CODE / "triton_model.py", place / "model.py")
        settings = {"folder": str(repository / version), "python_path": [str(packages), str(_CODE)]}
        (place / "settings.json").write_text(json.dumps(settings), "utf-8")
    dimensions = _picture_dimensions(repository / versions[0], environment)
    strings = "".join(f'input [ {{ name: "{name}" data_type: TYPE_STRING dims: [ 1 ] }} ]\n' for name in ("text", "document"))
    (folder / "models" / MODEL / "config.pbtxt").write_text(
        f'name: "{MODEL}"\nbackend: "python"\nmax_batch_size: 4096\nversion_policy: {{ all {{ }} }}\n{strings}'
        f'input [ {{ name: "picture" data_type: TYPE_FP32 dims: [ {dimensions} ] }} ]\n'
        'output [ { name: "score" data_type: TYPE_FP32 dims: [ 1 ] } ]\n'
        f"instance_group [ {{ count: 1 kind: KIND_CPU }} ]\n",
        "utf-8",
    )
    command = [
        str(wheel / "bin" / "tritonserver"), f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}", f"--http-address={_LOOPBACK}", f"--http-port={port}",
        "--allow-grpc=false", "--allow-metrics=false", "--log-info=false", "--exit-timeout-secs=3",
    ]  # fmt: skip
    return _Prepared(command, _environment(LD_LIBRARY_PATH=str(packages / "nvidia_pytriton.libs")))


def _mlserver(repository: Path, versions: Sequence[str], port: int, environment: Path, folder: Path) -> _Prepared:
    program = environment / "bin" / "mlserver"
    if not program.is_file():
        raise ServerMissingError(f"{environment} has no mlserver: run `make kserve`")
    settings = {"host": _LOOPBACK, "http_port": port, "grpc_port": _free_port(), "metrics_port": _free_port()}
    settings |= {"parallel_workers": 0, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings), "utf-8")
    for version in versions:
        place = folder / version
        place.mkdir()
        uri = {"uri": str(repository / version), "version": version}
        model = {"name": MODEL, "implementation": "mlserver_model.RankerModel", "parameters": uri}
        (place / "model-settings.json").write_text(json.dumps(model), "utf-8")
    return _Prepared([str(program), "start", str(folder)], _environment(PYTHONPATH=str(_CODE)))


_SERVERS: dict[str, Callable[[Path, Sequence[str], int, Path, Path], _Prepared]] = {"triton": _triton, "mlserver": _mlserver}


def _environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return kept | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"} | more


def _site_packages(environment: Path) -> Path:
    found = sorted(environment.glob("lib/python3*/site-packages"))
    if not found:
        raise ServerMissingError(f"there is no {environment}: run `make kserve`")
    return found[0]


def _picture_dimensions(folder: Path, environment: Path) -> int:
    """Read in the server's environment: this module needs no package of its own."""
    code = "import sys; from onnx_folder import OnnxFolder; print(OnnxFolder(sys.argv[1]).picture)"
    command = [str(environment / "bin" / "python"), "-c", code, str(folder)]
    return int(subprocess.run(command, env=_environment(PYTHONPATH=str(_CODE)), check=True, capture_output=True).stdout)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind((_LOOPBACK, 0))
        return int(s.getsockname()[1])


def _end_with_parent() -> None:
    """In the child, before the server starts: the kernel ends it when its parent is gone (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _wait_until_ready(url: str, versions: Sequence[str], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    waiting = [f"{url}/v2/health/ready", *(f"{url}/v2/models/{MODEL}/versions/{v}/ready" for v in versions)]
    while waiting:
        if process.poll() is not None or time.monotonic() > deadline:
            state = f"ended with {process.returncode}" if process.poll() is not None else f"not ready in {_START_SECONDS:.0f} s"
            raise RuntimeError(f"the model server {state}:\n{log.read_text('utf-8', 'replace')[-4000:]}")
        try:
            with urllib.request.urlopen(waiting[0], timeout=5) as answer:  # noqa: S310 (our own server)
                if answer.status == 200:
                    waiting.pop(0)
                    continue
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask, then end the server's whole session: its helpers too."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--server", choices=sorted(_SERVERS), default="triton")
    parser.add_argument("--port", type=int, default=0, help="of the loopback; 0: a free one")
    parser.add_argument("--version", action="append", dest="versions", help="give it again for several; none: all")
    chosen = parser.parse_args()
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with run_server(chosen.repository, server=chosen.server, versions=chosen.versions, port=chosen.port) as server:
            print(json.dumps({"url": server.url, "model": server.model, "versions": server.versions}), flush=True)
            while os.getppid() == parent and _alive(server.process_id):
                time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    except (ServerMissingError, FileNotFoundError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def _alive(process_id: int) -> bool:
    try:
        return os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


if __name__ == "__main__":
    main()
