"""`corewrite plan` against what a run then really takes: rates from small runs, a larger one of another shape predicted.

    python benchmarks/plan.py            # three repeats, about four minutes on two cores
    python benchmarks/plan.py --smoke    # tiny; its figures mean nothing and are not written

The demo-size decoder, taught to write a few words of a query of 30 to 60 prompt tokens. Measured are a run with many samples
and one with few, four phases of 200 instances each; predicted is one of three phases of 500 with another N and k. Rates come
from both runs, from the first alone, and from a calibration on made-up instances; the workload is the first run's, with size,
samples and k changed as `corewrite plan` would. Every repeat measures and predicts anew, in an order of its own. Writes rows
`measure, predicted, actual, ratio, ratios, unit, repeats, machine, date` to benchmarks/results/plan.json: medians, ratio =
predicted over actual, ratios of each repeat.
"""

import argparse
import random
import statistics
import tempfile
import time
import zlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from setting import write_rows

from corewrite.capacity.plan import Plan, Workload, build_workload, plan
from corewrite.capacity.profile import calibrate, read_run
from corewrite.capacity.rates import STEPS, MeasuredRun, fit
from corewrite.domain import Context, Query, TrainingInstance
from corewrite.rewriter import Example, Rewriter, fine_tune, new_small_decoder
from corewrite.studies.summary import machine
from corewrite.training import TrainingConfig, train

RESULTS = Path(__file__).parent / "results" / "plan.json"
WORDS = 3_000


@dataclass(frozen=True)
class Sizes:
    """How much is run: instances of a measured and of the predicted phase, repeats, fine-tuning examples."""

    measured: int = 200
    predicted: int = 500
    repeats: int = 3
    taught: int = 12_000


SMOKE = Sizes(24, 48, 1, 640)
MANY = {"num_generations": 12, "k": 1, "phases": 4}
FEW = {"num_generations": 4, "k": 1, "phases": 4}
LARGER = {"num_generations": 8, "k": 2, "phases": 3}


def words() -> list[str]:
    draw = random.Random(0)
    syllables = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]
    return sorted({"".join(draw.choices(syllables, k=draw.choice((2, 3)))) for _ in range(WORDS)})


def searches(n: int, seed: int) -> list[TrainingInstance]:
    """Queries of one to three words after two or three titles and an earlier query; some words are far commoner than others."""
    draw, pool = random.Random(seed), words()
    weights = [1 / rank**0.8 for rank in range(1, len(pool) + 1)]

    def text(least: int, most: int) -> str:
        return " ".join(draw.choices(pool, weights, k=draw.randint(least, most)))

    found = []
    for i in range(n):
        context = Context(queries=(text(2, 4),), titles=tuple(text(7, 12) for _ in range(draw.randint(2, 3))))
        found.append(TrainingInstance(f"{seed}-{i}", "u", Query(text(1, 3), context), ("a",), (1.0,), ("b",), (1.0,)))
    return found


def taught(n: int) -> Rewriter:
    """The demo's decoder, taught to leave a query alone or to add a word or two of the last title."""
    draw, instances = random.Random(1), searches(n, 1)
    policy = new_small_decoder([t for x in instances for t in (*x.query.context.titles, x.query.text)], seed=0)
    examples = []
    for x in instances:
        more = draw.sample(x.query.context.titles[-1].split(), draw.randint(0, 2))
        examples.append(Example(x.query, " ".join([x.query.text, *more])))
    print(fine_tune(policy, examples, epochs=1, seed=0))
    return policy


def reward(instances, texts):
    """Cheap, so that what is measured is the training; about half of the rewrites are better than the query."""
    return [
        np.array([0.0 if t == x.query.text else zlib.crc32(f"{x.instance_id} {t}".encode()) % 1_000 / 500 - 1 for t in row])
        for x, row in zip(instances, texts, strict=True)
    ]


def run(policy: Rewriter, per_phase: int, shape: dict[str, int], seed: int) -> tuple[MeasuredRun, dict[str, float]]:
    """A whole training run: what a plan reads of it, and its seconds by step and in all, the first phase included."""
    config = TrainingConfig(instances_per_phase=per_phase, **shape)
    instances = searches(per_phase * config.phases, seed)
    with tempfile.TemporaryDirectory() as folder:
        since = time.perf_counter()
        report = train(policy.copy(), instances, reward, config, Path(folder), seed=0, provenance={})
        actual = {"total": time.perf_counter() - since}
        found = read_run(Path(folder))
    return found, actual | {step: sum(r["seconds"].get(step, 0.0) for r in report.records) for step in STEPS}


def seconds_of_a_reward() -> float:
    """What is left to be given with a calibration."""
    instances = searches(200, 99)
    texts = [[f"{x.query.text} {i}" for i in range(12)] for x in instances]
    since = time.perf_counter()
    reward(instances, texts)
    return (time.perf_counter() - since) / 2_400


def calibrated(policy: Rewriter, wanted: Workload) -> Plan:
    """What `corewrite plan --model` would say, told the mean lengths, of the policy that is trained."""
    tokens = round(wanted.rewrite_tokens)
    runs = calibrate(
        policy, prompt_tokens=round(wanted.prompt_tokens), rewrite_tokens=tokens, samples=wanted.num_generations, k=wanted.k
    )  # fmt: skip
    workload = replace(build_workload(runs[0]), instances=wanted.instances, phases=wanted.phases)
    return plan(replace(fit(runs), scored=seconds_of_a_reward()), workload.with_rewrite_tokens(wanted.rewrite_tokens))


def repeat(policy: Rewriter, sizes: Sizes, seed: int) -> dict[str, tuple[float, float]]:
    """(predicted, actual) seconds by measure."""
    found: dict[str, tuple[MeasuredRun, dict[str, float]]] = {}
    todo = {"many": (sizes.measured, MANY), "few": (sizes.measured, FEW), "larger": (sizes.predicted, LARGER)}
    order = list(todo)
    random.Random(seed).shuffle(order)
    for name in order:
        found[name] = run(policy, *todo[name], seed=10 * seed + len(name))
    many, few, actual = found["many"][0], found["few"][0], found["larger"][1]
    wanted = replace(
        build_workload(many), instances=LARGER["phases"] * sizes.predicted, **LARGER
    )  # fmt: skip
    plans = {
        "two_runs": plan(fit([many, few]), wanted),
        "one_run": plan(fit([many]), wanted),
        "calibration": calibrated(policy, wanted),
    }
    return {
        f"{'run' if step == 'total' else step}_from_{name}": (by_step[step], actual[step])
        for name, p in plans.items()
        for by_step in [{"total": p.seconds} | {s.name: s.seconds for s in p.steps}]
        for step in ("total", "sample", "score", "reference", "learn")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny, nothing is written")
    sizes = SMOKE if parser.parse_args().smoke else Sizes()
    policy = taught(sizes.taught)
    run(policy, 24, {**FEW, "phases": 1}, seed=5)  # warms up what a first run loads
    repeats = [repeat(policy, sizes, seed) for seed in range(1, sizes.repeats + 1)]
    rows = []
    for measure in repeats[0]:
        pairs = [r[measure] for r in repeats]
        predicted, actual = (statistics.median(side) for side in zip(*pairs, strict=True))
        rows.append({
            "measure": measure, "predicted": predicted, "actual": actual, "ratio": predicted / actual,
            "ratios": [p / a for p, a in pairs], "unit": "s", "repeats": len(repeats), "machine": machine(),
            "date": datetime.now(UTC).date().isoformat(),
        })  # fmt: skip
        print(
            f"{measure:<28} predicted {predicted:7.2f} s, actual {actual:7.2f} s, ratios", *(f"{p / a:.2f}" for p, a in pairs)
        )
    if sizes is not SMOKE:
        write_rows(rows, RESULTS)
        print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
