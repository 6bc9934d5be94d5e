"""The emitted request through the client's local mode ranks like our cascade; not run on a Qdrant server.

A document's vector NAME holds its signal under every query, the query's vector is 0 but for a 1 in its place: their dot
product is the signal, in single precision.
"""

from functools import cache

import numpy as np
import pytest
import qdrant_client.hybrid.formula as local_formula
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from corewrite.fusion import FusionSpec, default_spec, parse_spec
from corewrite.fusion.compilers import CompileError, compile_spec, fill

# Local mode asks for the members of the same type at every node of a formula: half of its time.
local_formula.get_args_subscribed = cache(local_formula.get_args_subscribed)

VECTORS = ("dense", "relevance", "image")


class Platform:
    """A collection in local mode whose searches give the signals of `requests`."""

    def __init__(self, requests, vectors=VECTORS, payload=("prior", "fresh"), block=slice(None)) -> None:
        self.requests, self.vectors, self.first = requests, vectors, block.start or 0
        own = {n: v[block] for n, v in requests.own.items()}
        new = {n: np.nan_to_num(v[block]) for n, v in requests.new.items()}
        self.queries, self.documents = own[vectors[0]].shape
        self.client = QdrantClient(":memory:")
        size = 2 * self.queries
        self.client.create_collection(
            "d", {n: models.VectorParams(size=size, distance=models.Distance.DOT) for n in vectors}
        )  # fmt: skip
        points = [
            models.PointStruct(
                id=d, payload={n: float(own[n][0, d]) for n in payload},
                vector={n: [*own[n][:, d], *new[n][:, d]] for n in vectors},
            )
            for d in range(self.documents)
        ]  # fmt: skip
        self.client.upsert("d", points)

    def values(self, spec: FusionSpec, i: int, recalled: list[int], added: list[int]) -> dict[str, object]:
        """What a client fills in for request i."""

        def one(place: int) -> list[float]:
            vector = np.zeros(2 * self.queries)
            vector[place] = 1.0
            return vector.tolist()

        def recall(ids: list[int]) -> list[object]:
            return [{"filter": {"must": [{"has_id": ids}]}, "limit": len(ids)}] if ids else []

        values: dict[str, object] = {"recall.query": recall(recalled), "recall.rewrite": recall(added), "limit": self.documents}
        place = i - self.first
        values |= {f"query.{n}": one(place) for n in self.vectors}
        values |= {f"rewrite.{n}": one(self.queries + place) for n in self.vectors}
        for stage, s in spec.stages.items():
            values |= {f"present.{stage}.{j.signal}": float(self.requests.flag(stage, j.signal)[i]) for j in s.rewrite}
        return values

    def search(self, body: object) -> tuple[list[int], list[float]]:
        asked = models.QueryRequest.model_validate(body)
        found = self.client.query_points("d", prefetch=asked.prefetch, query=asked.query, using=asked.using, limit=asked.limit)
        return [p.id for p in found.points], [p.score for p in found.points]


BLOCK = 20
"""Queries of a collection: so that vectors stay short."""
CANDIDATES = 4


@pytest.fixture(scope="module")
def platforms(simulated):
    starts = range(0, len(simulated.own["prior"]), BLOCK)
    return [Platform(simulated, block=slice(start, start + BLOCK)) for start in starts]


FEATURES = {"query.fresh": "fresh"}


def compiled(spec):
    wanted = {s.signal for stage in spec.stages.values() for s in stage.original}
    return compile_spec(spec, "qdrant", {k: v for k, v in FEATURES.items() if k.partition(".")[2] in wanted})


def stage_alone(body, stage):
    """Finerank's formula over the documents recalled, or the fused rawrank's."""
    prefetch = body["prefetch"][0]["prefetch"][0]["prefetch"][0]["prefetch"]
    if stage == "rawrank":
        rawrank = body["prefetch"][0]["prefetch"][0]
        return rawrank | {"limit": "${limit}"}
    return body | {"prefetch": [p | {"prefetch": prefetch} for p in body["prefetch"]]}


def same_ranking(found, scores, documents, want):
    """Each document has its score; documents whose scores differ come in their order."""
    np.testing.assert_allclose(scores, want[found], rtol=1e-5)
    assert sorted(found) == sorted(documents)
    assert (np.diff(want[found]) <= 1e-6 * want[found][:-1]).all()


def check(platforms, requests, spec, stage, step):
    body, want = stage_alone(compiled(spec), stage), requests.expected(spec, stage)
    for i in range(0, BLOCK * len(platforms), step):
        platform = platforms[i // BLOCK]
        documents = np.random.default_rng(i).permutation(platform.documents)[:CANDIDATES].tolist()
        found, scores = platform.search(fill(body, platform.values(spec, i, documents, [])))
        same_ranking(found, scores, documents, want.score[i])


@pytest.mark.parametrize("stage", ["rawrank", "finerank"])
def test_2000_simulated_queries_score_as_evaluate_stage(platforms, simulated, stage):
    check(platforms, simulated, default_spec(), stage, 1)


@pytest.mark.parametrize("stage", ["rawrank", "finerank"])
def test_every_form_scores_as_evaluate_stage(platforms, simulated, rich, stage):
    check(platforms, simulated, rich, stage, 10)


def test_the_whole_request_is_the_cascade(platforms, simulated, rich):
    """Recall's union, rawrank's fused top K and original top P, finerank: with candidates that only the rewrite recalls."""
    body = compiled(rich)
    raw, fine = (simulated.expected(rich, s) for s in ("rawrank", "finerank"))
    protected = 0
    for i in range(0, BLOCK * len(platforms), 50):
        platform = platforms[i // BLOCK]
        rng = np.random.default_rng(i)
        order = rng.permutation(platform.documents).tolist()
        recalled, added = order[:8], order[8:11]
        both = np.array(recalled + added)
        top = both[np.argsort(-raw.score[i, both], kind="stable")][:5]
        original = np.array(recalled)[np.argsort(-raw.log_original[i, recalled], kind="stable")][:6]
        protected += len(set(original) - set(top))
        found, scores = platform.search(fill(body, platform.values(rich, i, recalled, added)))
        same_ranking(found, scores, {*top, *original}, fine.score[i])
    assert protected > 20


def test_an_absent_rewrite_leaves_the_answer_of_no_rewriter(platforms, simulated, rich):
    bare = type(rich).model_validate(
        rich.model_dump() | {s: {"original": stage.model_dump()["original"]} for s, stage in rich.stages.items()}
    )
    everything = list(range(platforms[0].documents))
    for i in range(0, BLOCK * len(platforms), 250):
        platform = platforms[i // BLOCK]
        values = platform.values(rich, i, everything, [])
        off = {k: 0.0 for k in values if k.startswith("present.")}
        with_, without = (fill(compiled(s), values | off) for s in (rich, bare))
        assert platform.search(with_) == platform.search(without)


@settings(deadline=None, max_examples=20)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_any_spec(specs, build_requests, data, seed):
    spec, requests = data.draw(specs), build_requests(seed, ("a", "b", "c"), 3, 5)
    platform = Platform(requests, ("a", "b", "c"), ())
    body = compile_spec(spec, "qdrant")
    for stage in spec.stages:
        alone, want = stage_alone(body, stage), requests.expected(spec, stage)
        for i in range(3):
            found, scores = platform.search(fill(alone, platform.values(spec, i, list(range(5)), [])))
            same_ranking(found, scores, list(range(5)), want.score[i])


SPEC = """
rawrank: {original: [{signal: prior, eps: 0.1}]}
finerank:
  original: [{signal: prior, eps: 0.1}]
  rewrite: [{signal: prior, relative_to: constant, n: 1, eps: 0.02, lo: 0.5, hi: 2, exponent: 1}]
recall: {rewrite_candidates: 0}
"""


def formula(body, present, prior):
    """The score of one document by hand-made request, from payload alone."""
    client = QdrantClient(":memory:")
    client.create_collection("d", models.VectorParams(size=1, distance=models.Distance.DOT))
    client.upsert("d", [models.PointStruct(id=0, vector=[1.0], payload={"prior": prior, "r": 0.0})])
    asked = models.QueryRequest.model_validate(
        fill(body, {"recall.query": [{"query": [1.0], "limit": 1}], "present.finerank.prior": present, "limit": 1})
    )
    return client.query_points("d", prefetch=asked.prefetch, query=asked.query).points[0].score


def test_golden():
    body = compile_spec(parse_spec(SPEC), "qdrant", {"rewrite.prior": "r"})
    # All from the payload: nothing to search, one candidate list within the other.
    assert formula(body, 1.0, 0.25) == 0.125  # unmatched: 0.02 clipped to 1/2
    assert formula(body, 0.0, 0.25) == 0.25  # absent
    assert formula(body, 0.0, 0.0) == pytest.approx(0.1, rel=1e-7)
    assert formula(body, 0.0, 7.0) == 1.0


def test_only_expressions_of_the_first_servers_with_formulas(rich):
    """max and min came later."""

    def operators(value):
        if isinstance(value, dict):
            return set(value) | {o for v in value.values() for o in operators(v)}
        return {o for v in value for o in operators(v)} if isinstance(value, list) else set()

    used = operators(compiled(rich)["query"]["formula"])
    assert used == {"mult", "sum", "neg", "abs", "div", "left", "right", "pow", "base", "exponent"}


def test_what_single_precision_or_the_clip_cannot_hold_is_refused():
    def spec(i):
        return parse_spec(f"rawrank: {{original: [{{signal: a, {i}}}]}}\nfinerank: {{original: [{{signal: a, eps: 0.1}}]}}")

    with pytest.raises(CompileError, match=r"original_a_top 1\.0 is more than 1e\+09 times original_a_eps 1e-10"):
        compile_spec(spec("eps: 1.0e-10"), "qdrant")
    with pytest.raises(CompileError, match=r"original_a_eps 1e-39 is beyond single precision"):
        compile_spec(spec("eps: 1.0e-39, top: 1.0e-38, exponent: 0.5"), "qdrant")
