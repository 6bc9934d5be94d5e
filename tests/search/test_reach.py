"""Which documents enter finerank: against a second implementation that sorts in Python, under random specs and lists."""

import math
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corewrite.domain import Catalogue, is_identity
from corewrite.fusion import FusionSpec
from corewrite.search import Cascade

DOCUMENTS = 12
TEXTS = ("cat", "dog", "bird", "fish", "Cat ", "")


def _hashed(*parts):
    return zlib.crc32(" ".join(map(str, parts)).encode())


class Signal:
    """Pseudo-random relevance of (text, document), of few values, so that there are ties; NaN for the texts named."""

    model_hash = "random"

    def __init__(self, seed, failing=()):
        self.seed, self.failing = seed, failing

    def value(self, text, row):
        return math.nan if text in self.failing else _hashed(self.seed, text.strip().casefold(), row) % 7 / 7

    def score(self, texts, rows):
        return np.array(
            [[0.0 if d < 0 else self.value(t, d) for d in row] for t, row in zip(texts, rows.tolist(), strict=True)]
        ).reshape(rows.shape)


class Lists:
    """Recall by words and by vectors: each text has its own order, and its own number of documents found."""

    def __init__(self, seed):
        self.seed = seed
        self.document_vectors = np.eye(2, dtype=np.float32)

    def found(self, kind, text, k):
        order = sorted(range(DOCUMENTS), key=lambda d: _hashed(self.seed, kind, text, d))
        return order[: min(k, _hashed(self.seed, kind, text) % (DOCUMENTS + 1))]

    def search_text(self, texts, k):
        return self._padded([self.found("words", t, k) for t in texts], k)

    def search_vector(self, vectors, k):
        return self._padded([self.found("vector", str(v[0]), k) for v in vectors.tolist()], k)

    def _padded(self, lists, k):
        return np.array([[*found, *[-1] * (k - len(found))] for found in lists], np.int64).reshape(len(lists), k)

    def embed_texts(self, texts):
        return np.array([[_hashed(t) % 1000, 0] for t in texts], np.float32)


@st.composite
def specs(draw):
    small, exponents = st.integers(1, 8), st.sampled_from([0.25, 0.5])
    k = draw(small)
    rewrite = draw(st.sampled_from(["none", "ratio", "constant", "both"]))
    factors = []
    if rewrite in ("ratio", "both"):
        factors.append({"signal": "dense", "eps": 0.1, "lo": 0.25, "hi": 4, "exponent": draw(exponents)})
    if rewrite in ("constant", "both"):
        factors.append({"signal": "other", "relative_to": "constant", "n": 0.4, "eps": 0.1, "exponent": draw(exponents)})
    return FusionSpec.model_validate(
        {
            "recall": {
                "original_candidates": draw(small), "rewrite_candidates": draw(st.integers(0, 8)),
                "use_rewrite": draw(st.booleans()),
            },
            "rawrank": {
                "original": [{"signal": "dense", "eps": 0.05}, {"signal": "prior", "eps": 0.1, "exponent": 0.5}],
                "rewrite": factors,
            },
            "finerank": {"original": [{"signal": "dense", "eps": 0.05}]},
            "depths": {"finerank": k, "protected": k + draw(st.integers(0, 3))},
        }
    )  # fmt: skip


PRIOR = [1.0, 0.5, 0.5, 0.3, 0.2, 0.2, 0.2, 0.1, 0.9, 0.4, 0.05, 0.05]


def _cascade(spec, seed, vectors, failing=()):
    n = DOCUMENTS
    names = tuple(f"d{i}" for i in range(n))
    catalogue = Catalogue(names, names, ("",) * n, np.zeros((n, 0), np.float32), np.ones(n), np.array(PRIOR))
    lists = Lists(seed)
    signals = {"dense": Signal(seed, failing), "other": Signal(seed + 1)}
    return Cascade(catalogue, lists, signals, lists if vectors else None, spec), lists, signals


def _clip(x, lo, hi):
    return min(max(x, lo), hi)


def _in_finerank(cascade, lists, signals, vectors, query, rewrite):
    """Documents that enter finerank, by the definition."""
    spec = cascade.spec

    def recall(text, k):
        found = [lists.found("words", text, k)]
        if vectors:
            found.append(lists.found("vector", str(float(_hashed(text) % 1000)), k))
        merged = []
        for place in range(k):
            merged += [one[place] for one in found if place < len(one)]
        return list(dict.fromkeys(merged))

    used = rewrite is not None and not is_identity(query, rewrite)
    original = recall(query, spec.recall.original_candidates)
    added = []
    if used and spec.recall.use_rewrite and spec.recall.rewrite_candidates:
        found = recall(rewrite, spec.recall.rewrite_candidates)
        added = [d for d in found if d not in original][: spec.recall.rewrite_candidates]

    def own(d):
        return math.log(_clip(signals["dense"].value(query, d), 0.05, 1)) + 0.5 * math.log(_clip(PRIOR[d], 0.1, 1))

    def fused(d):
        total = own(d)
        for f in spec.rawrank.rewrite if used else ():
            y = max(signals[f.signal].value(rewrite, d), f.eps)
            base = f.n if f.relative_to == "constant" else max(signals[f.signal].value(query, d), f.eps)
            total += f.exponent * math.log(_clip(y / base, f.lo, f.hi))
        return total

    # To 9 digits: equal scores whose factors were multiplied in another order are ties in both implementations.
    top_k = sorted([*original, *added], key=lambda d: (-round(fused(d), 9), d))[: spec.depths.finerank]
    top_p = sorted(original, key=lambda d: (-round(own(d), 9), d))[: spec.depths.protected]
    return {*top_k, *top_p}


SEARCHES = st.lists(st.tuples(st.sampled_from(TEXTS[:4]), st.sampled_from([*TEXTS, None])), min_size=1, max_size=5)


@given(spec=specs(), seed=st.integers(0, 10_000), vectors=st.booleans(), searches=SEARCHES)
def test_reach_is_what_a_second_implementation_finds(spec, seed, vectors, searches):
    cascade, lists, signals = _cascade(spec, seed, vectors)
    queries, rewrites = [q for q, _ in searches], [r for _, r in searches]
    rows = np.tile([*range(DOCUMENTS), -1], (len(searches), 1))
    reached = cascade.reach(queries, rewrites, rows)
    trace = cascade.trace(queries, rewrites)
    for i, (query, rewrite) in enumerate(searches):
        expected = _in_finerank(cascade, lists, signals, vectors, query, rewrite)
        assert set(np.flatnonzero(reached[i]).tolist()) == expected
        assert set(trace.finerank.rows[i][trace.finerank.rows[i] >= 0].tolist()) == expected
    assert (reached[:, -1] == 0).all()


@given(spec=specs(), seed=st.integers(0, 10_000), vectors=st.booleans(), searches=SEARCHES)
def test_what_the_query_reaches_every_rewrite_reaches(spec, seed, vectors, searches):
    cascade, *_ = _cascade(spec, seed, vectors)
    queries, rewrites = [q for q, _ in searches], [r for _, r in searches]
    rows = np.tile(np.arange(DOCUMENTS), (len(searches), 1))
    without = cascade.reach(queries, [None] * len(queries), rows)
    assert (cascade.reach(queries, rewrites, rows) >= without).all()
    assert (cascade.reach(queries, queries, rows) == without).all()


SPEC = FusionSpec.model_validate(
    {
        "recall": {"original_candidates": DOCUMENTS, "rewrite_candidates": 4},
        "rawrank": {"original": [{"signal": "dense", "eps": 0.05}], "rewrite": [{"signal": "dense", "eps": 0.1}]},
        "finerank": {"original": [{"signal": "dense", "eps": 0.05}]},
    }
)


def test_what_could_not_be_scored_is_not_known_and_spoils_no_other_search():
    every = np.tile(np.arange(DOCUMENTS), (3, 1))
    for failing, unknown in (("fish", [False, True, False]), ("cat", [True, True, False])):
        cascade, lists, _ = _cascade(SPEC, 3, vectors=False, failing=(failing,))
        assert all(lists.found("words", t, DOCUMENTS) for t in ("cat", "bird", "fish")), "else nothing would be scored"
        reached = cascade.reach(["cat", "cat", "bird"], [None, "fish", "dog"], every)
        assert np.isnan(reached).all(1).tolist() == np.isnan(reached).any(1).tolist() == unknown
        sound, *_ = _cascade(SPEC, 3, vectors=False)
        assert (reached[2] == sound.reach(["bird"], ["dog"], every[:1])[0]).all()


def test_a_document_that_is_not_recalled_needs_no_scores():
    cascade, lists, _ = _cascade(SPEC, 3, vectors=False, failing=("cat",))
    absent = next(d for d in range(DOCUMENTS) if d not in lists.found("words", "cat", DOCUMENTS))
    assert cascade.reach(["cat"], [None], np.array([[absent, -1]])).tolist() == [[0.0, 0.0]]
    assert cascade.reach([], [], np.empty((0, 3), np.int64)).shape == (0, 3)
