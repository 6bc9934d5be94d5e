"""A million inputs for everything that reads what strangers wrote.

Request bodies, what the rewriter says, fusion specs, settings, model and run folders, answers of backends, values in a cache.

    python benchmarks/fuzz.py                  # writes benchmarks/results/fuzz.json
    python benchmarks/fuzz.py --inputs 20000   # less

Each parser has a process of its own. Where `atheris` is installed (`pip install atheris`) the inputs are led by the coverage
of corewrite's own modules; else they are broken from valid ones at random. Which it was stands in the results. Inputs that
broke something are kept under `--out` with the traceback and are tried first the next time; a run that was stopped goes on
where it was. The exit code is 1 where anything broke.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuzz_inputs import mutate

if TYPE_CHECKING:
    from fuzz_targets import Target

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
SHARES = {
    "bodies": 0.25, "lines": 0.25, "specs": 0.03, "models": 0.03, "journals": 0.1, "configs": 0.04, "values": 0.15,
    "backends": 0.15,
}  # fmt: skip
SHARES_OF_TIME = {
    "bodies": 0.15, "lines": 0.1, "specs": 0.1, "models": 0.2, "journals": 0.1, "configs": 0.1, "values": 0.05, "backends": 0.2,
}  # fmt: skip
_SAID = ", ".join(f"{100 * share:.0f} %% {name}" for name, share in SHARES.items())
_PACKAGES = (
    "serving", "rewriter", "fusion", "storage", "domain", "registry", "cycle", "remote", "search.engines",
    "relevance.backends",
    "training.checkpoint", "training.candidate_table", "training.trained_state", "training.samplers", "experiment.rollout.file",
)  # fmt: skip
_KEPT, _EVERY = 5, 500


@dataclass
class Tally:
    """What came of the inputs so far.

    Attributes:
        outcomes: Inputs by what the target said.
        failures: Failures by exception and place.
        seconds: CPU seconds.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        return sum(self.outcomes.values()) + sum(self.failures.values())

    @classmethod
    def read(cls, file: Path) -> "Tally":
        if not file.is_file():
            return cls()
        told = json.loads(file.read_text("utf-8"))
        return cls(Counter(told["outcomes"]), Counter(told["failures"]), told["seconds"])

    def write(self, file: Path, **more: Any) -> None:
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"outcomes": self.outcomes, "failures": self.failures, "seconds": self.seconds, **more}))
        part.replace(file)


def one(target: "Target", data: bytes, tally: Tally, keep: Callable[[str, bytes, str], None]) -> None:
    """Give the target an input; what it must not do is counted and kept."""
    began = time.process_time()
    try:
        outcome = target(data)
        took = time.process_time() - began
        if took > target.cpu_seconds:
            raise TimeoutError(f"{took:.2f} s for {len(data)} bytes")
    except Exception as error:
        frame = [f for f in traceback.extract_tb(error.__traceback__) if f.name != "must"][-1]
        kind = f"{type(error).__name__} {Path(frame.filename).name}:{frame.lineno}"
        tally.failures[kind] += 1
        if tally.failures[kind] <= _KEPT:
            keep(kind, data, "".join(traceback.format_exception(error)))
        return
    finally:
        tally.seconds += time.process_time() - began
    tally.outcomes[outcome] += 1


def inputs(target: "Target", seed: int, start: int = 0) -> Iterator[bytes]:
    """Without coverage: input i is the same whenever seed and i are."""
    i = start
    while True:
        rng = random.Random(f"{seed}-{i}")
        yield mutate(rng, rng.choice(target.seeds), rng.choice(target.seeds), target.words, target.limit)
        i += 1


def _worker(a: argparse.Namespace) -> None:
    """Fuzz one target until enough was tried; never returns."""
    out: Path = a.out / a.target
    failures, corpus, progress = out / "failures", out / "corpus", out / f"seed-{a.seed}.json"
    for folder in (failures, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    guided = find_spec("atheris") is not None
    if guided:
        import atheris

        with atheris.instrument_imports(include=[f"corewrite.{package}" for package in _PACKAGES]):
            make = _maker(a.target)
    else:
        make = _maker(a.target)

    tally = Tally.read(progress)
    if tally.inputs >= a.inputs:
        sys.exit(0)
    deadline = time.monotonic() + 60 * a.minutes * SHARES_OF_TIME[a.target]
    made = tempfile.TemporaryDirectory()
    target = make(Path(made.name))

    def keep(kind: str, data: bytes, told: str) -> None:
        name = failures / hashlib.sha256(data).hexdigest()[:16]
        name.with_suffix(".input").write_bytes(data)
        name.with_suffix(".txt").write_text(told, "utf-8", "backslashreplace")
        print(f"{a.target}: {kind}\n{told[-600:]}", file=sys.stderr, flush=True)

    def note() -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        tally.write(progress, guided=guided, corpus=sum(1 for _ in corpus.iterdir()), peak_mib=peak)

    def given(data: bytes) -> None:
        one(target, data, tally, keep)
        over = tally.inputs >= a.inputs or time.monotonic() > deadline
        if over or tally.inputs % _EVERY == 0:
            note()
        if over:
            target.close()
            made.cleanup()
            # The fuzzer's own end runs nothing of Python's, so there is nothing to wait for.
            sys.stderr.flush()
            os._exit(0)

    note()
    for data in [*target.seeds, *(f.read_bytes() for f in sorted(failures.glob("*.input")))]:
        given(data)
    if not guided:
        for data in inputs(target, a.seed, tally.inputs):
            given(data)
    for k, data in enumerate(target.seeds):
        (corpus / f"seed-{k}").write_bytes(data)

    def changed(data: bytes, limit: int, seed: int) -> bytes:
        rng = random.Random(seed)
        # Its own changes know what was compared; ours know the structure, and half of them begin with what is valid.
        kind = rng.random()
        if kind < 0.15:
            return bytes(atheris.Mutate(data, limit))
        if kind > 0.5:
            data = rng.choice(target.seeds)
        return mutate(rng, bytes(data), rng.choice(target.seeds), target.words, min(limit, target.limit))

    options = [
        f"-seed={a.seed + tally.inputs + 1}", f"-max_len={target.limit}", "-mutate_depth=1", "-timeout=60", "-rss_limit_mb=0",
        "-verbosity=0", f"-artifact_prefix={failures}/",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: given(bytes(data)), custom_mutator=changed)
    atheris.Fuzz()


def _maker(name: str) -> "Callable[[Path], Target]":
    """What makes a target in a folder; importing it is what atheris looks at."""
    if name in ("values", "backends"):
        import fuzz_backends

        return lambda folder: fuzz_backends.Values() if name == "values" else fuzz_backends.Backends()
    if name in ("models", "journals", "configs"):
        import fuzz_files

        kind = {"models": fuzz_files.Models, "journals": fuzz_files.Journals, "configs": fuzz_files.Configs}[name]
        return lambda folder: kind()
    import fuzz_targets

    def made(folder: Path) -> "Target":
        if name == "specs":
            return fuzz_targets.Specs()
        rewriter = fuzz_targets.small_rewriter()
        if name == "lines":
            return fuzz_targets.Lines(rewriter)
        return fuzz_targets.Bodies(fuzz_targets.make_config(folder, rewriter), rewriter)

    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help=f"in all; {_SAID}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="at most, in all")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="failures, corpus and progress")
    parser.add_argument("--target", choices=list(SHARES), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.target:
        _worker(a)
    rows, broken = [], False
    for name, share in SHARES.items():
        wanted = round(a.inputs * share)
        done = subprocess.run(
            [sys.executable, __file__, "--target", name, "--inputs", str(wanted), "--seed", str(a.seed),
             "--minutes", str(a.minutes), "--out", str(a.out)],
            check=False,
        )  # fmt: skip
        progress = a.out / name / f"seed-{a.seed}.json"
        tally = Tally.read(progress)
        more = {k: v for k, v in json.loads(progress.read_text()).items() if k in {"guided", "corpus", "peak_mib"}}
        more |= {"outcomes": dict(tally.outcomes.most_common()), "per_cpu_second": tally.inputs / max(tally.seconds, 1e-9)}
        failed = sum(tally.failures.values()) + (done.returncode != 0)
        rows += [row(f"{name}_inputs", tally.inputs, "inputs", **more), row(f"{name}_failures", failed, "failures")]
        broken |= failed > 0
        print(
            f"{name}: {tally.inputs} inputs, {failed} failures {dict(tally.failures)}, {more}, exit {done.returncode}",
            flush=True,
        )
    RESULTS.write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", "utf-8")
    return int(broken)


def row(measure: str, ours: float, unit: str, **more: Any) -> dict[str, Any]:
    from corewrite.studies.summary import machine

    return {
        "measure": measure, "ours": ours, "peer": None, "ratio": None, "unit": unit, "repeats": 1, **more,
        "machine": machine(), "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
