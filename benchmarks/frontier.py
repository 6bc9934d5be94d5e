"""True nDCG@10 against training time: ours, TRL's GRPO and RLOO, and DPO in phases, from one warm start on one machine.

    python benchmarks/frontier.py [--seeds 0 1 2] [--minutes 1 2 4 8 15] [--only ours trl_grpo] [--out runs/frontier]

Every method trains once per seed for the longest of the times and its policy is kept at each of them, to be measured
afterwards; imports and a warm-up step on a copy are outside the clock, which counts the CPU seconds of the process: other work
on the machine hardly changes them. Run it with OMP_NUM_THREADS=1, where they are the seconds of one idle core. What is done is
kept under --out and not done again, so the study can be stopped and gone on with; --within stops it before a run that would not
be over in time. Ours ends by itself after its default phases, or earlier where its reward no longer rises; what it is then it
is at later times. The peers' rate is constant, as a run that is stopped by the clock has no schedule to finish.
Writes benchmarks/results/frontier.json: rows `method, seed, minutes, seconds, ndcg10, reward, judge, words`, the differences of
ours to each method at every time, paired by search with intervals by user, and with --plot an SVG.
"""

import argparse
import contextlib
import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from peers import PeerSettings, grpo, iterative_dpo, rloo
from setting import FloatArray, Platform, Task, paired, platform
from transformers import TrainerCallback

from corewrite.deployment.served import served_rewrites
from corewrite.domain import Query
from corewrite.report.vega import LINES, layers, mark, quantity, render_svg
from corewrite.rewriter import Rewriter, load_rewriter
from corewrite.studies.summary import machine
from corewrite.training import TrainingConfig, train

RESULTS = Path(__file__).parent / "results" / "frontier.json"
MEASURES = ("ndcg10", "reward", "judge", "words")
DPO_INSTANCES = 3_000
_ENDLESS = 10**6


class TimeUpError(Exception):
    """The training has had its time."""


@dataclass(eq=False)
class Marks:
    """The clock of a training: stops while the policy is measured.

    Attributes:
        seconds: Times to measure at, ascending.
        measure: Called with the number of a time that was reached and the seconds really spent.
        now: Reads the time, seconds; the CPU time of the process.
    """

    seconds: Sequence[float]
    measure: Callable[[int, float], None]
    now: Callable[[], float] = time.process_time
    spent: float = 0.0
    reached: int = 0
    _since: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Begin to count."""
        self._since = self.now()

    def tick(self, *, over: bool = False) -> bool:
        """Count what was spent and measure where a time was reached; whether the last was.

        Args:
            over: The training ends by itself: what is left is measured as it is.
        """
        self.spent += self.now() - self._since
        while self.reached < len(self.seconds) and (over or self.spent >= self.seconds[self.reached]):
            self.measure(self.reached, self.spent)
            self.reached += 1
        self.start()
        return self.reached == len(self.seconds)


@dataclass(frozen=True, eq=False)
class Run:
    """One training.

    Attributes:
        task: Warm start, instances and reward.
        policy: A copy of the warm start, trained in place.
        marks: Its clock.
        seed: Of everything random.
    """

    task: Task
    policy: Rewriter
    marks: Marks
    seed: int


def run_ours(run: Run) -> None:
    """Semi-online MPO at its defaults: it ends by itself, and is at later times what it is then."""

    def observe(phase: int, policy: Rewriter) -> dict[str, float]:
        if run.marks.tick():
            raise TimeUpError
        return {}

    def training(policy: Rewriter, config: TrainingConfig, watch: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            train(
                policy, run.task.instances, run.task.reward, config, Path(folder), seed=run.seed, provenance={}, observe=watch
            )  # fmt: skip

    defaults = TrainingConfig()
    training(run.policy.copy(), defaults.model_copy(update={"phases": 1}), lambda phase, policy: {})
    run.marks.start()
    with contextlib.suppress(TimeUpError):
        training(run.policy, defaults, observe)
        run.marks.tick(over=True)


class _Watch(TrainerCallback):
    """Ticks after each optimizer step and stops a trainer of TRL where its time is up."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.marks.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.marks.tick():
            control.should_training_stop = True


def run_policy_gradient(maker: Callable[..., Any]) -> Callable[[Run], None]:
    """GRPO or RLOO: sixteen completions of a prompt, rate and batch the best of the sweep in `benchmarks/training.py`."""

    def run_one(run: Run) -> None:
        settings = PeerSettings(
            1e-4, run.task.completions, run.task.limit, num_generations=16, seed=run.seed, head_on_response_only=True
        )  # fmt: skip
        runner = maker(run.policy, run.task.prompts, run.task.peer_reward, settings)
        runner.warm_up()
        runner.train(run.policy, _ENDLESS, None, [_Watch(run.marks)])

    return run_one


def run_iterative_dpo(run: Run) -> None:
    """TRL's `DPOTrainer` phase by phase, the best over the worst of sixteen samples by our sampler and reward."""
    defaults = TrainingConfig()
    settings = PeerSettings(
        1e-4, defaults.pairs_per_step, run.task.limit, seed=run.seed, head_on_response_only=True, beta=defaults.beta
    )  # fmt: skip
    dpo, random, size = iterative_dpo(run.policy, settings), np.random.default_rng(run.seed), len(run.task.instances)
    taken = min(DPO_INSTANCES, size)

    def pairs() -> list[Any]:
        drawn = [run.task.instances[i] for i in random.permutation(size)[:taken]]
        task = Task(run.task.name, run.policy, drawn, run.task.reward, 1, run.task.limit, 0, 0)
        return [(r.prompt, p.chosen.token_ids, p.rejected.token_ids) for r in task.rows(taken) for p in r.pairs]

    dpo.warm_up(pairs())
    run.marks.start()
    while not run.marks.tick():
        dpo.phase(pairs())


METHODS: dict[str, Callable[[Run], None]] = {
    "ours": run_ours,
    "trl_grpo": run_policy_gradient(grpo),
    "trl_rloo": run_policy_gradient(rloo),
    "iterative_dpo": run_iterative_dpo,
}


def train_method(
    method: str, task: Task, queries: Mapping[str, Sequence[Query]], seed: int, minutes: Sequence[float], out: Path
) -> None:
    """Train one method and keep its policy at each time with what it serves; a training that is kept is not done again.

    Args:
        method: Of `METHODS`.
        task: What is learnt.
        queries: To serve, by name.
        seed: Of everything random.
        minutes: Times, ascending.
        out: Where it is kept.
    """
    file = out / f"{method}-{seed}-trained.json"
    if file.is_file():
        return
    policy, times = task.policy.copy(), list[dict[str, Any]]()

    def keep(place: int, seconds: float) -> None:
        # Not the policy itself: a trainer of TRL has patched its forward pass.
        twin = task.policy.copy()
        twin.model.load_state_dict(policy.model.state_dict())
        twin.save(out / "policies" / f"{method}-{seed}-{minutes[place]:g}")
        times.append({"method": method, "seed": seed, "minutes": minutes[place], "seconds": seconds})
        print(times[-1], flush=True)

    METHODS[method](Run(task, policy, Marks([60 * m for m in minutes], keep), seed))
    for time_ in times:
        name = f"{method}-{seed}-{time_['minutes']:g}"
        kept = load_rewriter(out / "policies" / name)
        served = {of: served_rewrites(kept, some, max_new_tokens=task.limit) for of, some in queries.items()}
        (out / f"{name}-rewrites.json").write_text(json.dumps(served), "utf-8")
    file.write_text(json.dumps({"machine": machine(), "times": times}), "utf-8")  # last: says that the training is whole


def measure_method(method: str, found: Platform, seed: int, out: Path) -> None:
    """Measure what the policies that a training kept serve; what is measured is not measured again."""
    file = out / f"{method}-{seed}.json"
    if file.is_file():
        return
    trained, rows = json.loads((out / f"{method}-{seed}-trained.json").read_text("utf-8")), list[dict[str, Any]]()
    for time_ in trained["times"]:
        name = f"{method}-{seed}-{time_['minutes']:g}"
        served = json.loads((out / f"{name}-rewrites.json").read_text("utf-8"))
        means, truth = found.measure_rewrites(served["gate"], served["held_out"])
        means["ndcg10"] = means["ndcg10_all"]
        rows.append(time_ | {measure: means[measure] for measure in MEASURES} | {"machine": trained["machine"]})
        np.save(out / f"{name}.npy", truth)
        print(rows[-1], flush=True)
    (out / f"users-{seed}.json").write_text(json.dumps(list(found.held_out.user_ids)), "utf-8")
    file.write_text(json.dumps(rows), "utf-8")  # last: its presence says that the run is whole


def queries_of(found: Platform) -> dict[str, Sequence[Query]]:
    """What the policies are measured on: the gate's searches and fresh ones."""
    return {"gate": [x.query for x in found.for_gate], "held_out": found.held_out.queries}


def task_of(found: Platform) -> Task:
    """What every method learns on a platform."""
    limit = found.config.pipeline.max_new_tokens
    return Task("demo", found.warm, found.instances, found.deployment.reward, 1, limit, 128, 64)


def pooled(by_seed: Sequence[Sequence[float]]) -> dict[str, float]:
    """Of each seed's mean and interval: the mean over seeds with its own interval, and the least of the seeds' means."""
    mean, low, high = np.array(by_seed).T
    half = float(np.sqrt((((high - low) / 2) ** 2).sum()) / len(mean))
    return {
        "mean": float(mean.mean()), "low": float(mean.mean() - half), "high": float(mean.mean() + half),
        "least_seed": float(mean.min()), "seeds": len(mean),
    }  # fmt: skip


def differences(rows: Sequence[dict[str, Any]], out: Path) -> list[dict[str, Any]]:
    """nDCG@10 of ours minus each method's at every time, over the seeds that have both."""

    def truth(method: str, seed: int, minutes: float) -> FloatArray:
        return np.load(out / f"{method}-{seed}-{minutes:g}.npy")  # type: ignore[no-any-return]

    found = []
    for method in METHODS:
        for minutes in sorted({r["minutes"] for r in rows if r["method"] == method}):
            seeds = [{r["seed"] for r in rows if (r["method"], r["minutes"]) == (m, minutes)} for m in ("ours", method)]
            if method == "ours" or not (both := sorted(seeds[0] & seeds[1])):
                continue
            by_seed = []
            for seed in both:
                users = json.loads((out / f"users-{seed}.json").read_text("utf-8"))
                by_seed.append(paired(users, truth("ours", seed, minutes) - truth(method, seed, minutes)))
            found.append({"against": method, "minutes": minutes, **pooled(by_seed)})
    return found


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """Mean nDCG@10 over seeds against minutes of training, a line a method, as SVG; a time that a seed lacks is left out."""
    means, seeds = [], {r["seed"] for r in rows}
    for method in METHODS:
        for minutes in sorted({r["minutes"] for r in rows if r["method"] == method}):
            values = [r["ndcg10"] for r in rows if (r["method"], r["minutes"]) == (method, minutes)]
            if len(values) == len(seeds):
                means.append({"method": method, "minutes": minutes, "ndcg10": float(np.mean(values))})
    names = [m for m in METHODS if any(row["method"] == m for row in means)]
    values = [m["ndcg10"] for m in means]
    ends = sorted(m["minutes"] for m in means)
    room = 0.1 * (max(values) - min(values)) or 0.01
    axis = {"title": "minutes of training", "values": sorted(set(ends))}
    colour = {"field": "method", "type": "nominal", "scale": {"domain": names, "range": list(LINES[: len(names)])}}
    encoding = {
        "x": quantity("minutes", (ends[0], ends[-1]), scale={"type": "log"}, axis=axis),
        "y": quantity("ndcg10", (min(values) - room, max(values) + room), axis={"title": "nDCG@10", "grid": True}),
        "color": colour,
    }
    svg = render_svg(layers([mark("line", means, encoding, point=True)], width=460, height=260))
    return re.sub(r"var\([^,]*, ([^)]*)\)", r"\1", svg)  # an image has no page to take its colours from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 4, 8, 15], help="of training, to measure at")
    parser.add_argument("--only", nargs="+", choices=tuple(METHODS), default=list(METHODS), help="methods")
    parser.add_argument("--within", type=float, default=math.inf, help="minutes for all, measuring included")
    parser.add_argument("--platforms", type=Path, default=Path("runs/launches"), help="folder of the platforms' runs")
    parser.add_argument("--out", type=Path, default=Path("runs/frontier"), help="folder of the finished runs")
    parser.add_argument("--plot", type=Path, help="SVG to write")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    stop, minutes = time.monotonic() + 60 * arguments.within, sorted(arguments.minutes)
    for seed in arguments.seeds:
        found = None
        for method in arguments.only:
            if (arguments.out / f"{method}-{seed}.json").is_file() or time.monotonic() + 60 * minutes[-1] > stop:
                continue
            found = found or platform(seed, arguments.platforms)
            train_method(method, task_of(found), queries_of(found), seed, minutes, arguments.out)
            measure_method(method, found, seed, arguments.out)
    kept = [file for method in METHODS for file in sorted(arguments.out.glob(f"{method}-*.json")) if file.stem.count("-") == 1]
    rows = [row for file in kept for row in json.loads(file.read_text("utf-8"))]
    if not rows:
        raise SystemExit(f"no run is kept in {arguments.out}, and --within left no time for one")
    about = {"date": datetime.now(UTC).date().isoformat()}
    found_all = {**about, "rows": rows, "differences": differences(rows, arguments.out)}
    RESULTS.write_text(json.dumps(found_all, indent=1, allow_nan=False) + "\n", "utf-8")
    if arguments.plot:
        arguments.plot.write_text(draw(rows) + "\n", "utf-8")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
