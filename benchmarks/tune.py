"""Tuning to a damage budget: the simulated platform, and CAsT 2021 against the figures the fixed specs had there.

    python benchmarks/tune.py [--only cast|platform] [--run runs/launches/seed-0] [--searches 1500]

CAsT needs ../shared/data/cast; the platform a finished run of the demo. Writes benchmarks/results/tune.json.
"""

import argparse
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from corewrite.deployment.deployment import embedded_deployment
from corewrite.deployment.explain import ServedPolicy, load_champion
from corewrite.deployment.served import fused_lists, served_rewrites
from corewrite.domain import text_key
from corewrite.fusion import OriginalSignal, RewriteSignal, StageSpec
from corewrite.registry import Registry
from corewrite.simulation.intents import grades, oracle_rewrites
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.vocabulary import CATEGORIES
from corewrite.simulation.week import Week
from corewrite.simulation.world import NONE, World, make_world
from corewrite.studies.engine import NoRewriter
from corewrite.studies.quickstart.config import DemoConfig
from corewrite.studies.summary import machine
from corewrite.studies.truth import lists_ndcg10
from corewrite.tuning.data import TuningRequests
from corewrite.tuning.files import broken_rewrites, random_pair_eps, tuned_spec
from corewrite.tuning.outcome import TradeOff, Tuning
from corewrite.tuning.quality import ndcg10, reciprocal_rank
from corewrite.tuning.requests import build_requests, sampled
from corewrite.tuning.search import tune

CAST = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "cast" / "2021_manual_evaluation_topics_v1.0.json"
RESULTS = Path(__file__).parent / "results" / "tune.json"
Rows = list[dict[str, Any]]
SAMPLES = 16


# CAsT 2021


class Lexical:
    """BM25 (k1 1.2, b 0.75) over passages, squashed s / (s + 8); terms are lower-case words without a plural s."""

    def __init__(self, passages: Sequence[str]) -> None:
        self.terms = CountVectorizer(tokenizer=tokens, token_pattern=None, lowercase=False)
        counts = self.terms.fit_transform(passages).toarray().astype(float)
        length, df = counts.sum(1, keepdims=True), (counts > 0).sum(0)
        idf = np.log(1 + (len(passages) - df + 0.5) / (df + 0.5))
        self.weights = idf * counts * 2.2 / (counts + 1.2 * (0.25 + 0.75 * length / length.mean()))

    def score(self, texts: Sequence[str]) -> np.ndarray:
        raw = (self.terms.transform(texts).toarray() > 0) @ self.weights.T
        return raw / (raw + 8)


class Latent:
    """A dense signal without a model: cosine in 100 dimensions of latent semantic analysis, negative ones 0."""

    def __init__(self, passages: Sequence[str]) -> None:
        self.terms = TfidfVectorizer(tokenizer=tokens, token_pattern=None, lowercase=False, sublinear_tf=True)
        self.space = TruncatedSVD(100, random_state=0)
        self.passages = unit(self.space.fit_transform(self.terms.fit_transform(passages)))

    def score(self, texts: Sequence[str]) -> np.ndarray:
        return np.maximum(unit(self.space.transform(self.terms.transform(texts))) @ self.passages.T, 0.0)


def tokens(text: str) -> list[str]:
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in re.findall(r"\w+", text.lower())]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)


def cast_requests() -> TuningRequests:
    """239 turns of 26 conversations; candidates are all passages that answered a turn, the turn's own is relevant."""
    turns = [(t, i) for i, topic in enumerate(json.loads(CAST.read_text("utf-8"))) for t in topic["turn"]]
    passages = list(dict.fromkeys(t["passage"] for t, _ in turns))
    relevance = np.array([[float(p == t["passage"]) for p in passages] for t, _ in turns])
    conversation = [i for _, i in turns]
    raw, human = ([t[k] for t, _ in turns] for k in ("raw_utterance", "manual_rewritten_utterance"))
    signals = {"bm25": Lexical(passages), "lsa": Latent(passages)}
    kinds: dict[str, Sequence[str | None]] = {"champion": human}
    kinds |= broken_rewrites(human, conversation, conversation, seed=0)
    # Within a conversation the topic is right and the question wrong: what a category and a wrong aspect are on the platform.
    kinds["wrong_aspect"] = kinds.pop("shuffled_in_category")
    near = TfidfVectorizer(tokenizer=tokens, token_pattern=None, lowercase=False).fit_transform(human)
    alike = (near @ near.T).toarray()
    kinds["commonest"] = [human[int(alike.sum(1).argmax())]] * len(human)  # no two are equal: the one most like all others
    other = np.not_equal.outer(conversation, conversation)
    kinds["distractor"] = [human[j] for j in np.where(other, alike, -1.0).argmax(1)]
    kinds["worst_of_16"] = worst_samples(human, signals["bm25"], relevance)
    kinds["automatic"] = [t["automatic_rewritten_utterance"] for t, _ in turns]
    under = {
        kind: {name: np.where([[r is None] for r in texts], np.nan, s.score([r or "" for r in texts]))
               for name, s in signals.items()}
        for kind, texts in kinds.items()
    }  # fmt: skip
    return TuningRequests(
        tuple(f"c{i:02d}" for i in conversation), relevance, np.ones(relevance.shape, bool),
        {name: s.score(raw) for name, s in signals.items()}, under,
    )  # fmt: skip


def worst_samples(human: Sequence[str], lexical: Lexical, relevance: np.ndarray) -> list[str]:
    """Of 16 noisy copies (each word kept, dropped, or swapped for one of another turn, 1/2 : 1/4 : 1/4), the one that scores
    the turn's own passage worst against the best other."""
    rng = np.random.default_rng(7)
    every = [w for text in human for w in text.split()]
    found = []
    for i, text in enumerate(human):
        samples = [
            " ".join(w if u < 0.5 else every[rng.integers(len(every))] for w in text.split() if (u := rng.random()) < 0.75)
            for _ in range(SAMPLES)
        ]
        scores = lexical.score(samples)
        margin = np.where(relevance[i] > 0, scores, -1).max(1) - np.where(relevance[i] > 0, -1, scores).max(1)
        found.append(samples[int(margin.argmin())])
    return found


def cast_stage(dense: bool, lo: float = 0.9, hi: float = 4.0) -> StageSpec:
    """The ratio form of design section 3, with or without the dense signal."""
    names = ("bm25", "lsa") if dense else ("bm25",)
    return StageSpec(
        original=tuple(OriginalSignal(signal=n, eps=0.01) for n in names),
        rewrite=tuple(RewriteSignal(signal=n, lo=lo, hi=hi) for n in names),
    )


def cast(budget: float) -> Rows:
    requests, rows = cast_requests(), []
    for name, dense, quality in (("MRR", False, reciprocal_rank), ("MRR", True, reciprocal_rank), ("nDCG@10", True, ndcg10)):
        start = time.process_time()
        found = tune(cast_stage(dense), requests, budget=budget, quality=quality, limit=2_000)
        rows.append(row(f"CAsT 2021, BM25{' + LSA' if dense else ''}, {name}", found, time.process_time() - start))
    return rows


# The simulated platform


def platform(budget: float, run: Path, searches: int) -> Rows:
    """Half of the users of a fresh week to tune on, the other half to serve the tuned spec to."""
    start = time.process_time()
    config = DemoConfig(seed=int(run.name.rpartition("-")[2]))
    served = load_champion(run / "documents.parquet", Registry(run / "registry"))
    world, deployment = make_world(config.seeded_world), served.deployment
    week = simulate_week(world, config.traffic, NoRewriter(deployment.cascade), week=2, sessions=searches)
    half = np.array([text_key(user) % 2 for user in week.user_ids])
    to_tune, to_serve = (week.take(np.flatnonzero(half == k)[:n]) for k, n in ((0, searches), (1, searches // 2)))
    requests = platform_requests(world, to_tune, served, config)
    found = tune(deployment.spec.finerank, requests, budget=budget)
    rows = [row("simulated platform, nDCG@10 of the candidates of finerank", found, time.process_time() - start)]
    rows[0]["recommended_eps"] = dict(random_pair_eps(requests, deployment.spec.finerank))
    kinds = platform_rewrites(world, to_serve, served, config)
    tuned = tuned_spec(deployment.spec, found.tuned.stage)
    for name, spec in (("untuned", deployment.spec), ("tuned", tuned)):
        for stages in (("finerank",), ("recall", "rawrank", "finerank")):
            cascade = embedded_deployment(deployment.catalogue, deployment.ranker.embedder, spec.with_rewrite_stages(stages))
            quality = {
                kind: lists_ndcg10(world, to_serve, fused_lists(cascade, to_serve.queries, texts)).mean()
                for kind, texts in {"none": [None] * len(to_serve), **kinds}.items()
            }
            changes = {kind: float(v / quality["none"] - 1) for kind, v in quality.items() if kind != "none"}
            rows.append({
                "measure": f"simulated platform, users not tuned on, {name} spec, rewrite at {', '.join(stages)}",
                "requests": len(to_serve), "ndcg10_without": float(quality["none"]), "change": changes,
                "worst_loss": max(-v for kind, v in changes.items() if kind != "champion"),
            })  # fmt: skip
    return rows


def platform_rewrites(world: World, week: Week, served: ServedPolicy, config: DemoConfig) -> dict[str, list[str | None]]:
    """The champion and the broken rewriters that are texts; those with a wrong intent are written by the oracle."""
    champion = served_rewrites(served.policy, week.queries, max_new_tokens=config.pipeline.max_new_tokens)
    kinds = {"champion": champion}
    kinds |= broken_rewrites(champion, week.session_ids, week.intents.category.tolist(), seed=0)
    rng, wanted = np.random.default_rng(3), week.intents
    aspect, entity, category = wanted.aspect.copy(), wanted.entity.copy(), wanted.category.copy()
    for i, c in enumerate(wanted.category):
        aspect[i] = rng.choice([a for a in CATEGORIES[c][1] if a != wanted.aspect[i]])
        if entity[i] == NONE:
            category[i] = rng.choice([other for other in range(len(CATEGORIES)) if other != c])
        elif world.rival[entity[i]] != NONE:
            entity[i] = world.rival[entity[i]]
        else:
            entity[i] = rng.choice([e for e in np.flatnonzero(world.category == c) if e != entity[i]])
    kinds["wrong_aspect"] = list(oracle_rewrites(world, replace(wanted, aspect=aspect)))
    kinds["distractor"] = list(oracle_rewrites(world, replace(wanted, entity=entity, category=category)))
    return kinds


def platform_requests(world: World, week: Week, served: ServedPolicy, config: DemoConfig) -> TuningRequests:
    """Candidates of finerank with no rewriter, graded by the hidden intents."""
    keys = [text_key(i) for i in week.query_ids]
    samples = sampled(served.policy, week.queries, keys, seed=0, max_new_tokens=config.pipeline.max_new_tokens)
    kinds = platform_rewrites(world, week, served, config)
    graded = lambda rows: grades(world, week.intents, rows).astype(float)  # noqa: E731
    return build_requests(served.deployment.cascade, week.queries, week.user_ids, kinds, samples, graded)[0]


# Both


def row(name: str, found: Tuning, seconds: float) -> dict[str, Any]:
    return {"measure": name, "cpu_seconds": round(seconds, 1), **as_json(found)}


def as_json(found: Tuning) -> dict[str, Any]:
    return {
        "requests": found.requests, "groups": found.groups, "settings": found.settings,
        "quality_without": found.quality_without, "base": asdict(found.base),
        "tuned": trade_off(found.tuned)
        | {"fold_rewrites": [[j.model_dump(mode="json") for j in s.rewrite] for s in found.tuned.fold_stages]},
        "curve": [trade_off(t) for t in found.curve],
    }  # fmt: skip


def trade_off(t: TradeOff) -> dict[str, Any]:
    return {
        "budget": t.budget, "rewrite": [j.model_dump(mode="json") for j in t.stage.rewrite], "chosen": asdict(t.chosen),
        "held_out": asdict(t.held_out),
    }  # fmt: skip


def shown(r: Mapping[str, Any]) -> None:
    print(f"\n{r['measure']}: {r['requests']} requests, no rewriter {r.get('quality_without', r.get('ndcg10_without')):.3f}")
    if "curve" not in r:
        print("  worst loss", f"{r['worst_loss']:+.1%};", ", ".join(f"{k} {v:+.1%}" for k, v in r["change"].items()))
        return
    print(f"  {r['groups']} groups, {r['settings']} settings, {r['cpu_seconds']} s of CPU")
    for name, outcome in [("base", r["base"])] + [
        (f"{t['budget']:.1%} {kind}", t[kind]) for t in r["curve"] for kind in ("chosen", "held_out")
    ]:
        figures = [f"{k} {e['value']:+.1%} [{e['low']:+.1%}, {e['high']:+.1%}]" for k, e in outcome.items() if k != "loss"]
        print(f"  {name:<16}", *figures, "|", ", ".join(f"{k} {-e['value']:+.1%}" for k, e in outcome["loss"].items()))
    for t in r["curve"]:
        for j in t["rewrite"]:
            print(f"  {t['budget']:.1%}:", ", ".join(f"{k} {j[k]:.3g}" for k in ("eps", "lo", "hi", "exponent")), j["signal"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("cast", "platform"), help="one of the two; the other's rows are kept")
    parser.add_argument("--budget", type=float, default=0.02)
    parser.add_argument("--run", type=Path, default=Path("runs/launches/seed-0"), help="a finished run of the demo")
    parser.add_argument("--searches", type=int, default=1_500, help="to tune on, and half as many to serve")
    arguments = parser.parse_args()
    parts = {
        "cast": lambda: cast(arguments.budget),
        "platform": lambda: platform(arguments.budget, arguments.run, arguments.searches),
    }
    for name, part in parts.items():
        if arguments.only in (None, name):
            made = [{"part": name, **r, "machine": machine(), "date": datetime.now(UTC).date().isoformat()} for r in part()]
            kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else []
            kept = [r for r in kept if r["part"] != name] + made
            for r in made:
                shown(r)
            short = json.loads(json.dumps(kept, allow_nan=False), parse_float=lambda text: round(float(text), 5))
            RESULTS.write_text(json.dumps(short, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
