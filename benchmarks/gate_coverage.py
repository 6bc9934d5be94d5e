"""How often the gate's bounds let a candidate pass that is exactly as much worse than the champion as the margin allows.

    OMP_NUM_THREADS=1 python benchmarks/gate_coverage.py [--simulations 4000] [--users 40,200,500,2000]

At most 2.5 % are wanted. Beside the gate's bounds stands the t-test that they replaced: standard error over users, Student's t
with users - 1 degrees of freedom. Writes benchmarks/results/gate-coverage.json, a row for each setting; half an hour of a core.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import special

from corewrite.gate import GateConfig
from corewrite.gate.ratio_of_sums import EVENT, SHARE, UNLIMITED, GainRange, RatioOfSums
from corewrite.studies.summary import machine

FloatArray = npt.NDArray[np.float64]
Generator = np.random.Generator

RESULTS = Path(__file__).parent / "results" / "gate-coverage.json"
_AT_ONCE = 2_000_000


def queries_of_users(traffic: str, users: int, samples: int, rng: Generator) -> FloatArray:
    """Number of queries of each user, [users, samples].

    "one": one each. "geometric": three in the mean. "heavy": a Pareto law of index 1.5, 300 at most. "whale 10 %" and the
    like: geometric, but the first user has that share of all queries.
    """
    if traffic == "one":
        return np.ones((users, samples))
    if traffic == "heavy":
        return np.minimum(np.ceil(rng.pareto(1.5, (users, samples)) + 1e-9), 300.0)
    found = rng.geometric(1 / 3, (users, samples)).astype(np.float64)
    if traffic.startswith("whale"):
        share = float(traffic.split()[1]) / 100
        found[0] = np.maximum(1.0, np.round(share / (1 - share) * found[1:].sum(0)))
    elif traffic != "geometric":
        raise ValueError(f"no traffic is called {traffic!r}")
    return found


def rates_of_users(rate: float, clustering: float, shape: tuple[int, ...], rng: Generator) -> FloatArray | float:
    """Rate of an event for each user: the same for all, or of a beta law with that correlation within users, 0 or 1 at 1."""
    if clustering == 0 or rate == 0:
        return rate
    if clustering == 1:
        return (rng.random(shape) < rate).astype(np.float64)
    k = 1 / clustering - 1
    return rng.beta(rate * k, (1 - rate) * k, shape)


@dataclass(frozen=True)
class Rates:
    """A share of queries with an event, each seen under both policies.

    Attributes:
        margin: By how much the candidate's rate is higher.
        repaired: Share of queries on which the event is the champion's alone.
        clustering: Correlation of a policy's own events within a user.
    """

    margin: float
    repaired: float
    clustering: float

    def gains(self, queries: FloatArray, rng: Generator) -> FloatArray:
        """Sums over each user's queries of 1 where the event is the champion's alone, -1 where the candidate's."""
        harmed = self.margin + self.repaired
        n = queries.astype(np.int64)
        lost = rng.binomial(n, rates_of_users(harmed, self.clustering, n.shape, rng))
        won = rng.binomial(
            n - lost, np.minimum(rates_of_users(self.repaired / (1 - harmed), self.clustering, n.shape, rng), 1.0)
        )
        return (won - lost).astype(np.float64)


def _changes(queries: FloatArray, rng: Generator) -> FloatArray:
    """Of ten queries in a sample the results change, for better or worse by the same amount."""
    n = rng.binomial(queries.astype(np.int64), 10 / queries.sum(0))
    return (2 * rng.binomial(n, 0.5) - n) * 0.1


def _judged(queries: FloatArray, rng: Generator) -> FloatArray:
    """nDCG that changes on three queries in ten, and a little by user."""
    changed = rng.binomial(queries.astype(np.int64), 0.3)
    return (
        np.sqrt(changed) * rng.normal(0, 0.15, queries.shape) + queries * rng.normal(0, 0.01, queries.shape) - 0.005 * queries
    )


def _losses(queries: FloatArray, rng: Generator) -> FloatArray:
    """nDCG of which some users lose much: 2 % of queries lose 0.2 to 0.6, with a correlation of 0.25 within users."""
    n = queries.astype(np.int64)
    lost = rng.binomial(n, rates_of_users(0.02, 0.25, n.shape, rng))
    return -lost * rng.uniform(0.2, 0.6, n.shape) + np.sqrt(queries) * rng.normal(0, 0.01, n.shape)


def _lengths(queries: FloatArray, rng: Generator) -> FloatArray:
    """Words: one user in five gets longer texts, by a lognormal number with a mean of 1."""
    return -queries * rng.lognormal(-0.5, 1.0, queries.shape) * (rng.random(queries.shape) < 0.2)


MEANS: dict[str, tuple[Callable[[FloatArray, Generator], FloatArray], float, GainRange]] = {
    "ten changes, no gain": (_changes, 0.0, UNLIMITED),
    "judge": (_judged, 0.005, SHARE),
    "judge, clustered losses": (_losses, 0.008, SHARE),
    "words, lognormal by user": (_lengths, 0.2, UNLIMITED),
}
"""Simulated means: gains of users, the margin that they are worse by, what a gain can be."""


@dataclass(frozen=True)
class Found:
    """Shares of samples.

    Attributes:
        passed: In which the gate's L is above minus the margin, with enough effective users.
        passed_without_floor: In which L is, with however few.
        passed_t_test: In which that of the t-test is.
        failed: In which U is below minus the margin.
        held: With too few effective users for the gate.
        effective_users: Median.
    """

    passed: float
    passed_without_floor: float
    passed_t_test: float
    failed: float
    held: float
    effective_users: float


def simulate(
    gains: Callable[[FloatArray, Generator], FloatArray], possible: GainRange, margin: float, traffic: str, users: int,
    samples: int, seed: int, *, config: GateConfig = GateConfig(),
) -> Found:  # fmt: skip
    """Draw samples of users and ask the gate's bounds.

    Args:
        gains: Sums of each user's gains, from their numbers of queries, [users, samples].
        possible: What the gain of a query can be.
        margin: m.
        traffic: See `queries_of_users`.
        users: In a sample.
        samples: How many.
        seed: Of all that is drawn.
        config: The least number of effective users.
    """
    rng = np.random.default_rng(seed)
    parts = []
    while samples > 0:
        queries = queries_of_users(traffic, users, min(samples, max(1, _AT_ONCE // users)), rng)
        samples -= queries.shape[1]
        found = RatioOfSums(gains(queries, rng), queries, possible)
        held = found.effective_users < config.minimum_effective_users
        above, below = found.low() > -margin, found.high() < -margin
        shares = (~held & above, above, _t_low(found) > -margin, ~held & below, held)
        parts.append(np.stack([*shares, found.effective_users]))
    every = np.concatenate(parts, axis=1)
    return Found(*map(float, every[:-1].mean(1)), float(np.median(every[-1])))


def _t_low(sample: RatioOfSums) -> FloatArray:
    residuals = sample.gains - sample.mean * sample.queries
    error = np.sqrt((residuals**2).sum(0)) / sample.queries.sum(0)
    return np.asarray(sample.mean - special.stdtrit(len(residuals) - 1, 0.975) * error)


TRAFFIC = ("one", "geometric", "heavy", "whale 5 %", "whale 10 %", "whale 50 %")
DIFFERENCES = ((0.001, 0.0), (0.01, 0.0), (0.01, 0.001), (0.01, 0.01), (0.01, 0.05), (0.05, 0.0))
CLUSTERING = (0.0, 0.3, 1.0)


def rows(users: list[int], samples: int) -> Iterator[dict[str, object]]:
    """A row for each setting."""
    for n, traffic in product(users, TRAFFIC):
        for (margin, repaired), clustering in product(DIFFERENCES, CLUSTERING):
            if traffic == "one" and clustering:
                continue  # nothing to be alike
            case = Rates(margin, repaired, clustering)
            found = simulate(case.gains, EVENT, margin, traffic, n, samples, seed=len(traffic) + n)
            yield {"metric": "rate", "users": n, "traffic": traffic, **asdict(case), **asdict(found)}
        for name, (gains, margin, possible) in MEANS.items():
            found = simulate(gains, possible, margin, traffic, n, samples, seed=len(traffic) + n)
            yield {"metric": name, "users": n, "traffic": traffic, "margin": margin, **asdict(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4_000)
    parser.add_argument("--users", default="40,200,500,2000", help="numbers of users, by commas")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    done = []
    for row in rows([int(n) for n in arguments.users.split(",")], arguments.simulations):
        done.append(row)
        print(" ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)
    about = {"simulations": arguments.simulations, "machine": machine(), "date": datetime.now(UTC).date().isoformat()}
    arguments.out.write_text(json.dumps({**about, "rows": done}, indent=1, allow_nan=False) + "\n", "utf-8")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
