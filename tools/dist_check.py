"""Builds wheel and sdist, and installs the wheel where nothing of ours is: first alone, then with its extras.

python tools/dist_check.py            # ten minutes; writes build/dist and build/dist-venv
python tools/dist_check.py --keep     # leaves the environment for a look

Alone, every command has its help, what needs no extra works, and what needs one names it before it begins. With `train` and
`report` the miniature demo runs. Then each extra in turn: its modules are imported.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from time import perf_counter

from corewrite.domain.extras import EXTRAS

ROOT = Path(__file__).parents[1]
DIST, VENV = ROOT / "build" / "dist", ROOT / "build" / "dist-venv"
PIP = ("-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile", "-c", str(ROOT / "constraints.txt"))
DECIDED = (0, 3, 4)
"""Exit codes of a demo that ran to its end: promote, hold, reject."""


def main() -> None:
    """Run all; the first failure ends it with exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave the environment")
    keep = parser.parse_args().keep
    wheel = built()
    shutil.rmtree(VENV, ignore_errors=True)
    run(sys.executable, "-m", "venv", str(VENV))
    with tempfile.TemporaryDirectory(prefix="corewrite-dist-") as folder:
        install(wheel)
        alone(Path(folder))
        install(wheel, "train", "report")
        demo(Path(folder), "--miniature", "--out", "demo", code=DECIDED)
        for extra, modules in EXTRAS.items():
            install(wheel, extra)
            run(python(), "-c", f"import {', '.join(modules)}", cwd=Path(folder))
    if not keep:
        shutil.rmtree(VENV)


def built() -> Path:
    """Build both; the wheel is made of the sdist. Both hold every file of the package that git knows."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT))
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    listed = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    files = {line.removeprefix("src/") for line in listed if line}
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/src/")[2] for name in archive.getnames()}
    for name, held in (("wheel", packed), ("sdist", sources)):
        if missing := sorted(files - held):
            sys.exit(f"the {name} lacks {', '.join(missing)}")
    print(f"{wheel.name}, {sdist.name}: {len(files)} files of the package in both", flush=True)
    return wheel


def alone(folder: Path) -> None:
    """What core dependencies are enough for."""
    command = str(VENV / "bin" / "corewrite")
    for call in ("--help", "--version", "demo --help", "init --help", "registry --help"):
        run(command, *call.split(), cwd=folder)
    run(command, "fusion", "compile", "--to", "vespa", "--out", "profile.txt", cwd=folder)
    said = run(python(), "-c", "import corewrite; print(corewrite.load_spec.__name__, corewrite.__version__)", cwd=folder)
    print(said.strip())
    said = demo(folder, "--miniature", "--out", "refused", code=(1,))
    if "pip install 'corewrite[train,report]'" not in said or (folder / "refused").exists():
        sys.exit(f"the demo does not name the extras that it needs before it begins:\n{said}")


def demo(folder: Path, *args: str, code: tuple[int, ...]) -> str:
    """The demo; what it printed."""
    return run(str(VENV / "bin" / "corewrite"), "demo", *args, cwd=folder, code=code)


def install(wheel: Path, *extras: str) -> None:
    """Install the wheel with these extras beside what is there."""
    run(python(), *PIP, f"{wheel}[{','.join(extras)}]" if extras else str(wheel))


def python() -> str:
    """The environment's."""
    return str(VENV / "bin" / "python")


def run(*words: str, cwd: Path | None = None, code: tuple[int, ...] = (0,)) -> str:
    """Run a program that sees nothing of the source tree; what it printed."""
    begun = perf_counter()
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(words, cwd=cwd, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    shown = " ".join([Path(words[0]).name, *words[1:]])
    if done.returncode not in code:
        sys.exit(f"{shown}: exit code {done.returncode}\n{done.stdout}")
    print(f"{perf_counter() - begun:6.1f} s  {shown[:110]}", flush=True)
    return done.stdout


if __name__ == "__main__":
    main()
