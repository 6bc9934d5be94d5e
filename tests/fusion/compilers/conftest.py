"""Two thousand simulated queries over the documents shown most, with signals that are absent, unmatched or failed."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import strategies as st

from corewrite.deployment.deployment import embedded_deployment
from corewrite.fusion import FusionSpec, StageFusion, default_spec, evaluate_stage, parse_spec
from corewrite.relevance import cold_start
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.world import make_world
from corewrite.studies.engine import NoRewriter

QUERIES, DOCUMENTS = 2_000, 12

RICH = parse_spec("""
rawrank:
  original:
    - {signal: dense, eps: 0.01}
    - {signal: prior, eps: 0.05, exponent: 0.3}
  rewrite:
    - {signal: dense, exponent: 0.5}
    - {signal: image, relative_to: constant, n: 3, eps: 0.02, lo: 0.5, hi: 1, exponent: 1}
finerank:
  original:
    - {signal: relevance, eps: 0.001, exponent: 1.2}
    - {signal: fresh, eps: 0.1, top: 2.5, exponent: 0.7}
    - {signal: prior, eps: 0.05, exponent: 0.3}
  rewrite:
    - {signal: relevance, eps: 0.04, lo: 0.3, hi: 5, exponent: 0.6}
    - {signal: image, relative_to: constant, n: 0.4, eps: 0.02, lo: 0.5, hi: 2, exponent: 0.25}
    - {signal: dense, eps: 0.03, lo: 1, hi: 2, exponent: 0.5}
depths: {finerank: 5, protected: 6}
recall: {original_candidates: 8, rewrite_candidates: 4}
""")
NAMES = ("dense", "relevance", "image", "fresh", "prior")


@dataclass(frozen=True, eq=False)
class Requests:
    """Signals by name, float64 [queries, documents]; presence by (stage, signal), bool [queries]."""

    own: dict[str, np.ndarray]
    new: dict[str, np.ndarray]
    present: dict[tuple[str, str], np.ndarray]

    def expected(self, spec: FusionSpec, stage: str) -> StageFusion:
        available = {name: flags for (s, name), flags in self.present.items() if s == stage}
        return evaluate_stage(spec.stages[stage], self.own, self.new, available)

    def flag(self, stage: str, signal: str) -> np.ndarray:
        """What a client says of a request: there, and a number for every document."""
        return self.present[stage, signal] & np.isfinite(self.new[signal]).all(1)


@pytest.fixture(scope="session")
def build_requests():
    """Random requests: (seed, names, queries, documents) to `Requests`."""

    def make(seed: int, names: tuple[str, ...], queries: int, documents: int) -> Requests:
        rng = np.random.default_rng(seed)
        shape = (queries, documents)
        # Below every floor, at zero, above every top.
        values = [-1.0, 0.0, 0.5, 5.0, *rng.uniform(0, 2, 20)]
        own, new = ({n: rng.choice(values, shape) for n in names} for _ in range(2))
        for values_ in new.values():
            values_[rng.random(queries) < 0.2, rng.integers(documents)] = np.nan
        present = {(stage, n): rng.random(queries) < 0.7 for stage in ("rawrank", "finerank") for n in names}
        return Requests(own, new, present)

    return make


@pytest.fixture(scope="session")
def simulated() -> Requests:
    world = make_world(WorldConfig(seed=2, videos=800, entities=30))
    deployment = embedded_deployment(world.catalogue, cold_start(world.catalogue), default_spec())
    week = simulate_week(world, TrafficConfig(), NoRewriter(deployment.cascade), week=0, sessions=1_500)
    texts = [q.text for q in week.queries][:QUERIES]
    assert len(texts) == QUERIES
    shown = week.ranking.rows[week.ranking.rows >= 0]
    rows = np.broadcast_to(np.argsort(-np.bincount(shown, minlength=800), kind="stable")[:DOCUMENTS], (QUERIES, DOCUMENTS))
    rng = np.random.default_rng(7)
    # Rewrites: titles of what was shown, another user's query, words nobody knows.
    title = [world.catalogue.titles[r] for r in rng.choice(shown, QUERIES)]
    kind = rng.integers(0, 4, QUERIES)
    rewrites = [("zzzz qqqq", texts[-i], title[i], f"{texts[i]} {title[i]}")[kind[i]] for i in range(QUERIES)]
    scorers = deployment.cascade.signals
    own = {n: scorers[n].score(texts, rows) for n in ("dense", "relevance")}
    new = {n: scorers[n].score(rewrites, rows) for n in ("dense", "relevance")}
    shape = (QUERIES, DOCUMENTS)
    own |= {"image": rng.uniform(0, 1, shape), "prior": world.catalogue.prior[rows]}
    own["fresh"] = np.broadcast_to(rng.choice([-1.0, 0.0, 0.4, 1.5, 4.0], DOCUMENTS), shape)
    new["image"] = np.where(rng.random(shape) < 0.3, 0.0, rng.uniform(0, 1, shape))
    new["dense"][kind == 0] = 0.0  # truly not matched
    for values in new.values():
        values[rng.random(QUERIES) < 0.05, rng.integers(DOCUMENTS)] = np.nan
    present = {(stage, n): rng.random(QUERIES) < 0.8 for stage in ("rawrank", "finerank") for n in new}
    return Requests(own, new, present)


@pytest.fixture(scope="session", params=["default", "rich"])
def spec(request) -> FusionSpec:
    return RICH if request.param == "rich" else default_spec()


@pytest.fixture(scope="session")
def rich() -> FusionSpec:
    return RICH


@st.composite
def _specs(draw: st.DrawFn) -> FusionSpec:
    unit = st.floats(0.01, 1)
    names = ("a", "b", "c")

    def stage() -> dict[str, list[dict[str, object]]]:
        original, rewrite = [], []
        for name in draw(st.lists(st.sampled_from(names), unique=True, min_size=1)):
            eps = draw(st.floats(1e-6, 0.5))
            top = eps + draw(st.floats(0.1, 2))
            original.append({"signal": name, "eps": eps, "top": top, "exponent": draw(st.floats(0.1, 1.5))})
        exponents = {str(i["signal"]): float(str(i["exponent"])) for i in original}
        for name in draw(st.lists(st.sampled_from(names), unique=True)):
            constant = draw(st.booleans())
            rewrite.append({
                "signal": name, "relative_to": "constant" if constant else "original", "n": draw(unit) if constant else None,
                "eps": draw(unit), "lo": draw(unit), "hi": 1 / draw(unit),
                "exponent": draw(st.floats(0, 1)) * exponents.get(name, 2.0) / 2,
            })  # fmt: skip
        return {"original": original, "rewrite": rewrite}

    return FusionSpec.model_validate({"rawrank": stage(), "finerank": stage()})


@pytest.fixture(scope="session")
def specs() -> st.SearchStrategy[FusionSpec]:
    """Random specs over the signals a, b, c that the default limits of single precision hold."""
    return _specs()
