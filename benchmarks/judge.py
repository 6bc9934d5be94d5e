"""Is the judge to be believed? The sign of its changes, and their slope on the true ones, over pairs of policies.

    python benchmarks/judge.py [--seeds 0 1 2] [--platforms runs/launches] [--out runs/judge] [--minutes 14]

On each platform: the warm start, the champion, interpolations of their weights, checkpoints of retrains with other seeds and
settings (half of the phases), on the first platform GRPO too, the rewriters of --others, mixtures that serve one policy to a
share of the users and another to the rest, and the gate benchmark's rewritings of what the champion serves, at weak strengths.
All pairs of policies, and every mixture and rewriting against the champion and the warm start, on two weeks of fresh searches.

For each pair: the true change of nDCG@10 over all of a week's searches, on those that the judge sees alone (the ceiling of what
any judge could say of them), by the judge with its raters (2,000 pairs of a search and a document, chosen and corrected as the
gate does), and by the judge alone. The second week's judge has learnt from the grades of the first week.

What is finished is kept; run again until it says that everything is there. Writes benchmarks/results/judge.json.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import PeerSettings, grpo
from setting import Platform, Task, platform

from corewrite.cycle import read_catalogue, read_labels
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.deployment.served import fused_lists, served_rewrites
from corewrite.domain import hash_share, normalise
from corewrite.evaluation.direct_grades import GradedPairs, GradingTask
from corewrite.fusion import default_spec
from corewrite.registry import Registry
from corewrite.relevance import Labels, LateInteraction
from corewrite.rewriter import Rewriter, load_rewriter
from corewrite.simulation.intents import ndcg10
from corewrite.simulation.raters import searchers_descriptions
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import World, make_world
from corewrite.studies.engine import NoRewriter
from corewrite.studies.gate_benchmark.change import relative_change
from corewrite.studies.gate_benchmark.families import FAMILIES, CorpusStats, rewritten
from corewrite.studies.gate_benchmark.remember import RememberingJudge
from corewrite.studies.quickstart.config import DemoConfig
from corewrite.studies.raters import SimulatedRaters, labels_of
from corewrite.studies.summary import machine
from corewrite.training import train

RESULTS = Path(__file__).parent / "results" / "judge.json"
WEEKS, SESSIONS, TRUE, SEEN, PAIRS = (2, 3), 4_500, 8_000, 4_000, 2_000
INTERPOLATED = (0.25, 0.5, 0.75, 1.25)
TRAININGS: Mapping[str, Mapping[str, Any]] = {"retrain": {}, "loose": {"beta": 0.1, "learning_rate": 8e-4}}
PHASES, GRPO_INSTANCES = 3, 3_000
SHARES, SHARE_OF_USERS = (0.03, 0.08, 0.2), (0.35, 0.7)
LEFT_OUT = ("obeys-planted",)  # nothing is planted here

Texts = list[str | None]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Ground:
    """A platform without what training needs of it."""

    config: DemoConfig
    world: World
    deployment: Deployment

    @classmethod
    def of(cls, seed: int, out: Path) -> "Ground":
        folder, config = out / f"seed-{seed}", DemoConfig(seed=seed)
        registry = Registry(folder / "registry")
        (model,) = (LateInteraction.load(registry.path(a)) for a in registry.artifacts() if a.kind == "relevance")
        deployment = embedded_deployment(read_catalogue(folder / "documents.parquet"), model, default_spec())
        return cls(config, make_world(config.seeded_world), deployment)


@dataclass(eq=False)
class Bench:
    """One seed: its platform and its policies."""

    seed: int
    platforms: Path
    out: Path
    others: Path | None
    wanted: Sequence[str]

    @cached_property
    def found(self) -> Platform:
        """With what training needs."""
        return platform(self.seed, self.platforms)

    @cached_property
    def ground(self) -> Ground:
        """What measuring needs of it."""
        return Ground.of(self.seed, self.platforms)

    @cached_property
    def folder(self) -> Path:
        return self.platforms / f"seed-{self.seed}"

    @property
    def made(self) -> Path:
        return self.out / f"policies-{self.seed}"

    def trainings(self) -> Iterator[Callable[[], None]]:
        """Those that were not finished yet."""
        for k, (name, change) in enumerate(TRAININGS.items()):
            if name in self.wanted and not (self.made / f"{name}-{PHASES}").is_dir():
                yield partial(self._train, name, change, 101 + k)
        if self.seed == 0 and "grpo" in self.wanted and not (self.made / "grpo").is_dir():
            yield self._grpo

    def _train(self, name: str, change: Mapping[str, Any], seed: int) -> None:
        config = self.found.config.pipeline.training.model_copy(update={**change, "phases": PHASES})

        def keep(phase: int, policy: Rewriter) -> dict[str, float]:
            policy.save(self.made / f"{name}-{phase + 1}")
            return {}

        with tempfile.TemporaryDirectory() as folder:
            train(
                self.found.warm.copy(), self.found.instances, self.found.deployment.reward, config, Path(folder),
                seed=seed, provenance={}, observe=keep,
            )  # fmt: skip

    def _grpo(self) -> None:
        policy, found = self.found.warm.copy(), self.found
        limit = found.config.pipeline.training.max_new_tokens
        task = Task("demo", found.warm, found.instances, found.deployment.reward, 1, limit, 128, 128)
        settings = PeerSettings(3e-4, 128, limit, num_generations=16, head_on_response_only=True)
        grpo(policy, task.prompts, task.peer_reward, settings).run(instances=GRPO_INSTANCES)
        policy.save(self.made / "grpo")

    def policies(self) -> dict[str, Rewriter]:
        """By name, the earlier ones of a training first."""
        warm = load_rewriter(self.platforms / f"seed-{self.seed}-warm")
        registry = Registry(self.folder / "registry")
        # The first one that was trained, whether it was promoted or held.
        champion = load_rewriter(registry.path(next(a for a in registry.artifacts() if a.kind == "policy")))
        found = {"warm": warm}
        found |= {f"weights-{a:g}": interpolated(warm, champion, a) for a in INTERPOLATED if a < 1}
        found["champion"] = champion
        found |= {f"weights-{a:g}": interpolated(warm, champion, a) for a in INTERPOLATED if a > 1}
        found |= {path.name: load_rewriter(path) for path in sorted(self.made.iterdir())}
        if self.others is not None:  # last, so that they are the candidates: later versions train better ones
            found |= {path.name: load_rewriter(path) for path in sorted((self.others / f"{self.seed}").glob("*"))}
        return found

    def served(self, week: Week, policies: Mapping[str, Rewriter]) -> dict[str, Texts]:
        """What they serve, decoded once."""
        limit, found = self.ground.config.pipeline.max_new_tokens, {}
        for name, policy in policies.items():
            file = self.out / "rewrites" / f"{self.seed}-{week.week}-{name}-{policy.policy_hash[:16]}.json"
            if not file.is_file():
                file.parent.mkdir(exist_ok=True)
                write(file, served_rewrites(policy, week.queries, max_new_tokens=limit))
            found[name] = json.loads(file.read_text("utf-8"))
        return found

    def measure(self, week: int, file: Path) -> None:
        """Write the rows of a week."""
        write(file, self.rows(week))

    def rows(self, week: int) -> list[dict[str, Any]]:
        """All pairs on a week."""
        ground = self.ground
        searches, policies = Searches.of(ground, week), self.policies()
        texts = self.served(searches.week, policies)
        trained = list(texts)
        texts |= self._variants(searches.week, texts)
        systems = searches.systems(ground, texts)
        truth = searches.truth(ground, systems)
        labels = read_labels(self.folder / "labels.parquet", ground.deployment.catalogue)
        if week > WEEKS[0]:
            before = Searches.of(ground, WEEKS[0])
            earlier = self.served(before.week, {name: policies[name] for name in ("champion", "warm")})
            graded = before.graded(ground, before.systems(ground, earlier), "champion", "warm", 7)
            labels = together(labels, labels_of(graded.pairs, graded.given))
        judge = RememberingJudge(ground.deployment.catalogue)
        report = judge.fit(labels, seed=self.seed)
        pairs = [(b, a) for a, b in itertools.combinations(trained, 2)]
        pairs += [(name, base) for name in texts if name not in trained for base in ("champion", "warm")]
        found = []
        for k, (candidate, base) in enumerate(pairs):
            row = searches.compare(ground, systems, truth, judge, candidate, base, k)
            found.append({"seed": self.seed, "week": week, "candidate": candidate, "base": base, **row})
        print(f"seed {self.seed}, week {week}: {len(found)} pairs, {report}", flush=True)
        return found

    def _variants(self, week: Week, texts: Mapping[str, Texts]) -> dict[str, Texts]:
        found: dict[str, Texts] = {}
        for share in SHARE_OF_USERS:
            chosen = [hash_share(user, "mixture") < share for user in week.user_ids]
            parts = zip(texts["champion"], texts["warm"], chosen, strict=True)
            found[f"mixture-{share:g}"] = [a if new else b for a, b, new in parts]
        corpus = CorpusStats.of(Counter(normalise(q.text) for q in week.queries), self.ground.deployment.catalogue)
        for family in FAMILIES.values():
            if family.name not in LEFT_OUT:
                for amount in (1.0,) if family.unit == "words" else SHARES:
                    new = rewritten(family, amount, corpus, self.seed, week.queries, texts["champion"])
                    found[f"{family.name}-{amount:g}"] = new
        return found


def interpolated(a: Rewriter, b: Rewriter, share: float) -> Rewriter:
    """A policy with weights (1 - share) a + share b."""
    made = a.copy()
    with torch.no_grad():
        for own, other in zip(made.model.parameters(), b.model.parameters(), strict=True):
            own.lerp_(other, share)
    return made


def together(a: Labels, b: Labels) -> Labels:
    return Labels([*a.queries, *b.queries], np.concatenate([a.rows, b.rows]), np.concatenate([a.grades, b.grades]))


@dataclass(frozen=True, eq=False)
class Searches:
    """Fresh searches of a week; the judge sees those at `seen`."""

    week: Week
    seen: IntArray

    @classmethod
    def of(cls, found: Ground, week: int) -> "Searches":
        engine = NoRewriter(found.deployment.cascade)
        happened = simulate_week(found.world, found.config.traffic, engine, week=week, sessions=SESSIONS)
        rng = np.random.default_rng([found.config.seed, week, 46])
        happened = happened.take(np.sort(rng.choice(len(happened), min(TRUE, len(happened)), replace=False)))
        return cls(happened, np.sort(rng.choice(len(happened), SEEN, replace=False)))

    def systems(self, found: Ground, texts: Mapping[str, Texts]) -> dict[str, IntArray]:
        """Lists of each system's rewrites, and without any; what several serve is searched for once."""
        n = len(self.week)
        texts = {"none": [None] * n, **texts}
        rows = fused_lists(found.deployment, self.week.queries * len(texts), [t for some in texts.values() for t in some])
        return {name: rows[k * n : (k + 1) * n] for k, name in enumerate(texts)}

    def truth(self, found: Ground, systems: Mapping[str, IntArray]) -> dict[str, FloatArray]:
        """True nDCG@10 of each search, by system; at once, so that the best list of an intent is looked for once."""
        n = len(self.week)
        intents = self.week.intents.take(np.tile(np.arange(n), len(systems)))
        values = ndcg10(found.world, intents, np.concatenate(list(systems.values())))
        return {name: values[k * n : (k + 1) * n] for k, name in enumerate(systems)}

    def graded(self, found: Ground, systems: Mapping[str, IntArray], candidate: str, base: str, seed: int) -> GradedPairs:
        """Ask raters about a comparison, as the gate does."""
        ids, queries = [self.week.query_ids[i] for i in self.seen], [self.week.queries[i] for i in self.seen]
        wanted = dict(zip(ids, searchers_descriptions(found.world, self.week.take(self.seen)), strict=True))
        task = GradingTask(SimulatedRaters(found.world, wanted), PAIRS, seed)
        first, second, none = (systems[name][self.seen] for name in (candidate, base, "none"))
        graded = task.graded(ids, queries, first, second, [none])
        assert graded is not None, f"{candidate} and {base} show the same"
        return graded

    def compare(
        self,
        found: Ground,
        systems: Mapping[str, IntArray],
        truth: Mapping[str, FloatArray],
        judge: RememberingJudge,
        candidate: str,
        base: str,
        seed: int,
    ) -> dict[str, float]:
        """True change, that on the same searches, the judge's with raters and alone."""
        users = [self.week.user_ids[i] for i in self.seen]
        a, b = truth[candidate], truth[base]
        queries = [self.week.queries[i] for i in self.seen]
        lists = [systems[name][self.seen] for name in (candidate, base)]
        alone, graded = judge.ndcg10(queries, lists), self.graded(found, systems, candidate, base, seed)
        corrected = [values + more for values, more in zip(alone, graded.corrections(judge, lists), strict=True)]
        change = relative_change(*corrected, users)
        return {
            "true": float(a.mean() / b.mean() - 1),
            "same_searches": float(a[self.seen].mean() / b[self.seen].mean() - 1),
            "judge": change.change,
            "low": change.low,
            "high": change.high,
            "alone": float(alone[0].mean() / alone[1].mean() - 1),
            "calibration_error": graded.calibration_error(judge),
        }


def wilson(k: int, n: int, z: float = 1.96) -> list[float]:
    """Interval of a share (Wilson 1927)."""
    if not n:
        return [0.0, 1.0]
    p, d = k / n, 1 + z * z / n
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    return [float((p + z * z / (2 * n)) / d - half), float((p + z * z / (2 * n)) / d + half)]


def agreement(
    rows: Sequence[dict[str, Any]], measure: str, above: float, below: float = 1e9, gains: bool = False
) -> dict[str, Any]:
    """Share of the pairs with a true change in (above, below] whose sign `measure` has right."""
    some = [r for r in rows if above < abs(r["true"]) <= below and (r["true"] > 0 or not gains)]
    right = sum((r[measure] > 0) == (r["true"] > 0) for r in some)
    share = right / len(some) if some else None
    return {"pairs": len(some), "right": right, "share": share, "interval": wilson(right, len(some))}


def slope(rows: Sequence[dict[str, Any]], measure: str, most: float = 1e9, seed: int = 0) -> dict[str, Any]:
    """Least-squares slope of the changes by `measure` on the true ones; the interval resamples candidates of platforms."""
    some = [r for r in rows if abs(r["true"]) <= most]
    groups: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for r in some:
        groups.setdefault((r["seed"], r["candidate"]), []).append((r["true"], r[measure]))
    parts = list(groups.values())
    rng = np.random.default_rng(seed)
    draws = [fit([xy for k in rng.integers(0, len(parts), len(parts)) for xy in parts[k]]) for _ in range(2_000)]
    interval = np.percentile(draws, [2.5, 97.5]).tolist()
    return {"slope": fit([xy for p in parts for xy in p]), "interval": interval, "pairs": len(some)}


def fit(points: Sequence[tuple[float, float]]) -> float:
    x, y = np.array(points).T
    return float(((x - x.mean()) * (y - y.mean())).sum() / max(((x - x.mean()) ** 2).sum(), 1e-30))


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures by measure: the judge with raters, truth on the same searches, the judge alone."""
    found: dict[str, Any] = {}
    for measure in ("judge", "same_searches", "alone"):
        found[measure] = {
            "sign_over_0.5_percent": agreement(rows, measure, 0.005),
            "sign_over_2_percent": agreement(rows, measure, 0.02),
            "sign_0.5_to_2_percent": agreement(rows, measure, 0.005, 0.02),
            "sign_0.5_to_2_percent_gains": agreement(rows, measure, 0.005, 0.02, gains=True),
            "slope": slope(rows, measure),
            "slope_within_2_percent": slope(rows, measure, 0.02),
        }
    covered = [r["low"] <= r["same_searches"] <= r["high"] for r in rows]
    about = {"pairs": len(rows), "calibration_error": float(np.mean([r["calibration_error"] for r in rows]))}
    about["interval_covers_truth_on_same_searches"] = float(np.mean(covered))
    about["mean_half_interval"] = float(np.mean([(r["high"] - r["low"]) / 2 for r in rows]))
    of_judge = {name: found["judge"][name] for name in ("sign_over_0.5_percent", "sign_over_2_percent", "slope")}
    return {**of_judge, **about, "measures": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--platforms", type=Path, default=Path("runs/launches"), help="folder of the platforms' runs")
    parser.add_argument("--out", type=Path, default=Path("runs/judge"), help="folder of what is finished")
    parser.add_argument("--trainings", nargs="*", default=[*TRAININGS, "grpo"], help="to do where they are not done yet")
    parser.add_argument("--others", type=Path, help="folder with further rewriters of each seed, such as the gate benchmark's")
    parser.add_argument("--minutes", type=float, default=600.0, help="after which no further piece begins")
    arguments = parser.parse_args()
    stop, left = time.monotonic() + 60 * arguments.minutes, 0
    for seed in arguments.seeds:
        bench = Bench(seed, arguments.platforms, arguments.out, arguments.others, arguments.trainings)
        bench.made.mkdir(parents=True, exist_ok=True)
        pieces: list[tuple[str, Callable[[], None]]] = [("training", piece) for piece in bench.trainings()]
        files = [(week, arguments.out / f"{seed}-{week}.json") for week in WEEKS]
        pieces += [(file.name, partial(bench.measure, week, file)) for week, file in files if not file.is_file()]
        for name, piece in pieces:
            if time.monotonic() > stop:
                left += 1
                continue
            begin = time.monotonic()
            piece()
            print(f"seed {seed}, {name}: {time.monotonic() - begin:.0f} s", flush=True)
    rows = [row for file in sorted(arguments.out.glob("*-*.json")) for row in json.loads(file.read_text("utf-8"))]
    if rows:
        about = {"machine": machine(), "date": datetime.now(UTC).date().isoformat(), "searches": SEEN, "graded_pairs": PAIRS}
        write(RESULTS, {**about, **summarise(rows), "rows": rows})
    print(f"{left} pieces are left: run again" if left else f"everything is there, written to {RESULTS}")


def write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
