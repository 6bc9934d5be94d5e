"""What a neighbour on the same cores costs training, by number of threads and by how they wait for each other.

    python benchmarks/neighbour.py             # about a quarter of an hour on two cores
    python benchmarks/neighbour.py --rounds 1  # one round

A process fine-tunes the small decoder for some seconds, alone, beside a process that only computes, and beside another that
fine-tunes the way it does by default. Settings take turns, so that whatever else the machine does meets all of them; rows have
the medians over rounds of steps a second, and of how many times the default's of the same round that is.
Writes benchmarks/results/neighbour.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from corewrite.cli.cores import SPINS
from corewrite.studies.summary import machine

RESULTS = Path(__file__).parent / "results" / "neighbour.json"
SECONDS = 8.0
SETTINGS: dict[str, tuple[int, dict[str, str]]] = {
    "two threads, as libgomp waits by default": (2, {}),
    "two threads, as corewrite has them wait": (2, {"GOMP_SPINCOUNT": SPINS}),
    "two threads, OMP_WAIT_POLICY=passive": (2, {"OMP_WAIT_POLICY": "passive"}),
    "one thread": (1, {}),
}
NEIGHBOURS: dict[str, list[str]] = {
    "nobody": [],
    "a process that computes": [sys.executable, "-c", "print(flush=True)\nwhile True: pass"],
    "a training as by default": [sys.executable, __file__, "--child", "2", "--seconds", "1e9"],
}


def child(threads: int, seconds: float) -> None:
    """Fine-tune for so long and print steps a second; the first steps warm up."""
    import numpy as np
    import torch

    from corewrite.capacity.profile import synthetic_decoder
    from corewrite.domain import Query
    from corewrite.rewriter.examples import Example
    from corewrite.rewriter.fine_tune import fine_tune

    torch.set_num_threads(threads)
    rewriter = synthetic_decoder()
    rng, letters = np.random.default_rng(0), list("abcdefghijklmnopqrstuvwxyz")
    words = ["".join(rng.choice(letters, 5)) for _ in range(500)]
    examples = [Example(Query(" ".join(rng.choice(words, 3))), " ".join(rng.choice(words, 2))) for _ in range(2_000)]

    class Enough(Exception):  # noqa: N818
        pass

    begun: list[float] = []
    steps = 0

    def progress(done: int, total: int) -> None:
        nonlocal steps
        if done == 3:
            print(flush=True)
            begun.append(time.perf_counter())
        steps = done - 3
        if begun and time.perf_counter() - begun[0] > seconds:
            raise Enough

    try:
        fine_tune(rewriter, examples, epochs=1e6, seed=0, progress=progress)
    except Enough:
        print(json.dumps({"steps_per_second": steps / (time.perf_counter() - begun[0])}))


def measured(threads: int, variables: dict[str, str], neighbour: list[str]) -> float:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    beside = subprocess.Popen(neighbour, env=clean, stdout=subprocess.PIPE) if neighbour else None
    try:
        if beside is not None:
            assert beside.stdout is not None
            beside.stdout.readline()  # once it is under way
        command = [sys.executable, __file__, "--child", str(threads), "--seconds", str(SECONDS)]
        found = subprocess.run(command, env=clean | variables, check=True, capture_output=True, text=True)
        return float(json.loads(found.stdout)["steps_per_second"])
    finally:
        if beside is not None:
            beside.kill()
            beside.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.seconds)
        return
    rates: dict[tuple[str, str], list[float]] = {(s, n): [] for n in NEIGHBOURS for s in SETTINGS}
    for number in range(args.rounds):
        for neighbour, command in NEIGHBOURS.items():
            for setting, (threads, variables) in SETTINGS.items():
                rates[setting, neighbour].append(measured(threads, variables, command))
                print(
                    f"round {number + 1}: {setting}, beside {neighbour}: {rates[setting, neighbour][-1]:.2f} steps/s",
                    flush=True,
                )
    rows: list[dict[str, Any]] = []
    for (setting, neighbour), found in rates.items():
        default = rates[next(iter(SETTINGS)), neighbour]
        rows.append(
            {
                "setting": setting, "neighbour": neighbour, "steps_per_second": statistics.median(found),
                "times_the_default": statistics.median(f / d for f, d in zip(found, default, strict=True)),
                "rounds": found, "load_average": os.getloadavg()[2], "machine": machine(),
                "date": datetime.now(UTC).date().isoformat(),
            }
        )  # fmt: skip
    args.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
