"""The reward against a loop over its definition; the identity is exactly neutral; failed scores stay failed."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.deployment.reward import FusedReward
from corewrite.domain import Catalogue, Query, TrainingInstance
from corewrite.fusion import Depths, RecallSpec, RewardSpec, RewriteSignal, default_spec, parse_spec
from corewrite.search import Cascade


def documents(ids):
    n = len(ids)
    return Catalogue(tuple(ids), tuple(ids), ("",) * n, np.zeros((n, 0), np.float32), np.ones(n), np.ones(n))


def test_a_reach_weight_needs_to_know_what_is_reached():
    with pytest.raises(ValueError, match=r"reach_weight of the spec's reward is 0\.5"):
        FusedReward(default_spec(), {}, documents(""))
    FusedReward(default_spec().with_rewrite_stages(("finerank",)), {}, documents(""))


def test_a_spec_of_version_1_that_weighed_rawrank_or_recall_has_no_reward():
    text = "rawrank: {original: []}\nfinerank: {original: []}\nreward: {recall_weight: 0.1}"
    with pytest.raises(ValueError, match="version: 2"):
        FusedReward(parse_spec(text), {}, documents(""))


class BatchDependent:
    """One text gets another number in every batch, as of a model whose kernels are chosen by the batch's size."""

    model_hash = "batch-dependent"
    document_vectors = np.eye(4, dtype=np.float32)

    def __init__(self, noise):
        self.noise, self.calls, self.asked = noise, 0, set()

    def score(self, texts, rows):
        self.calls += 1
        self.asked |= set(texts)
        own = np.array(
            [
                [zlib.crc32(f"{t.casefold()} {d}".encode()) % 97 / 100 + 0.02 for d in row]
                for t, row in zip(texts, rows, strict=True)
            ]
        )
        shaken = np.random.default_rng([self.calls, len(texts)]).uniform(-self.noise, self.noise, own.shape)
        return np.where(rows < 0, 0.0, np.clip(own + shaken, 1e-3, 1 - 1e-3))

    def embed_texts(self, texts):
        return np.stack([np.roll(self.document_vectors[0], zlib.crc32(t.casefold().encode()) % 4) for t in texts])


class AnyOrder:
    """An engine that recalls what the text's hash says."""

    def search_text(self, texts, k):
        return np.array([np.roll(np.arange(4), zlib.crc32(t.casefold().encode()) % 4)[:k] for t in texts])

    def search_vector(self, vectors, k):
        return np.argsort(-vectors, axis=1, kind="stable")[:, :k]


FORMS = {
    "ratio": RewriteSignal(signal="relevance"),
    "constant": RewriteSignal(signal="relevance", relative_to="constant", n=0.2),
}
TEXTS = st.sampled_from(["cat", "Cat Show", "ＤＯＧ", "straße", "cat  nap", "É"])


def spec_of(form, reach_weight):
    spec = default_spec()
    only = {"rewrite": (FORMS[form],)}
    return spec.model_copy(
        update={
            "rawrank": spec.rawrank.model_copy(update=only),
            "finerank": spec.finerank.model_copy(update=only),
            "reward": spec.reward.model_copy(update={"reach_weight": reach_weight}),
        }
    )


@given(
    queries=st.lists(TEXTS, min_size=1, max_size=6),
    form=st.sampled_from(sorted(FORMS)),
    noise=st.sampled_from([1e-7, 0.3]),
    data=st.data(),
)
def test_the_identity_is_neutral_in_reward_and_ranking_under_every_form_and_ranker(queries, form, noise, data):
    catalogue, spec = documents("abcd"), spec_of(form, 0.5)
    scorer = BatchDependent(noise)
    engine, signals = AnyOrder(), {"relevance": scorer, "dense": scorer}
    cascade = Cascade(catalogue, engine, signals, scorer, spec)
    reward = FusedReward(spec, signals, catalogue, cascade.reach)
    same = [lambda q: q, str.casefold, str.upper, lambda q: f" {q}  ", lambda q: "", lambda q: " "]
    unchanged = [[how(q) for how in data.draw(st.permutations(same))] for q in queries]
    instances = [
        TrainingInstance(f"i{n}", "u", Query(q), ("a",), (1.0,), ("b", "c"), (1.0, 2.0)) for n, q in enumerate(queries)
    ]

    alone = reward(instances, unchanged)
    assert all(row.tolist() == [0.0] * len(same) for row in alone)
    assert not scorer.asked, "the ranker is not asked about the identity"
    mixed = reward(instances, [[*row, "a bird", "fish"] for row in unchanged])
    assert all(row[:-2].tolist() == [0.0] * len(same) for row in mixed)
    assert any((row[-2:] != 0).any() for row in mixed), "other texts do earn something"
    assert scorer.asked == {"a bird", "fish", *queries}

    for q, row in zip(queries, unchanged, strict=True):
        for text in row:
            trace = cascade.trace([q], [text])
            for stage in (trace.rawrank, trace.finerank):
                assert all((np.asarray(f) == 1.0).all() for f in stage.fusion.rewrite_factors.values())
            assert not trace.from_rewrite.any()
            # What serving does to the scores is what the reward says: nothing.
            assert (trace.finerank.fusion.log_rewrite == 0.0).all()


class Broken:
    """A model that cannot score some texts."""

    model_hash = "broken"

    def __init__(self, *texts):
        self.texts = texts

    def score(self, texts, rows):
        failed = np.array([t in self.texts for t in texts])
        return np.where(rows < 0, 0.0, np.where(failed[:, None], np.nan, 0.1 + 0.8 * np.array([[len(t) / 20] for t in texts])))


@pytest.mark.parametrize(
    ("form", "failing", "lost"),
    [
        ("ratio", "dog", [[False, False, True], [False, False]]),
        ("ratio", "cat", [[False, True, True], [False, False]]),  # the divisor: nothing is known of the ratio
        ("constant", "cat", [[False, False, False], [False, False]]),  # nothing is divided by it
    ],
)
def test_a_failed_score_is_no_neutral_rewrite(form, failing, lost):
    instances = [
        TrainingInstance(q, "u", Query(q), ("a",), (1.0,), ("b",), (1.0,), 0.0) for q in ("cat", "bird")
    ]  # fmt: skip
    scorers = {name: Broken(failing) for name in ("relevance", "dense")}
    found = FusedReward(spec_of(form, 0.0), scorers, documents("ab"))(instances, [["cat", "lion", "dog"], ["bird", "wren"]])
    assert [np.isnan(row).tolist() for row in found] == lost
    assert found[0][0] == found[1][0] == 0.0


DEPTH, SIZE = 2, 8
QUERIES, REWRITES = ("cat", "dog", "bird"), ("a cat", "hot dog", "big bird", "fish")


def narrow(reach_weight, finerank_weight=1.0):
    """The packaged formula with lists so short that what a rewrite brings in matters."""
    spec = default_spec()
    return spec.model_copy(
        update={
            "recall": RecallSpec(original_candidates=2, rewrite_candidates=3),
            "depths": Depths(finerank=DEPTH, protected=DEPTH),
            "reward": RewardSpec(
                finerank_weight=finerank_weight, reach_weight=reach_weight, zero_weight_reason="to look at one term alone"
            ),
        }
    )


class Whole(BatchDependent):
    """The same number in every batch, for a few documents."""

    def __init__(self, *failing):
        super().__init__(0.0)
        self.failing = failing

    def score(self, texts, rows):
        failed = np.array([t in self.failing for t in texts], bool)[:, None]
        return np.where(failed & (rows >= 0), np.nan, super().score(texts, rows))


class Shuffled:
    """An engine whose order is the text's own."""

    def search_text(self, texts, k):
        orders = [np.random.default_rng(zlib.crc32(t.encode())).permutation(SIZE)[:k] for t in texts]
        return np.array(orders, np.int64).reshape(len(texts), k)


def cascade_of(spec, scorer):
    return Cascade(documents([f"d{i}" for i in range(SIZE)]), Shuffled(), {"relevance": scorer, "dense": scorer}, None, spec)


def instances_with(draw):
    def one(number):
        ids = draw(st.permutations([f"d{i}" for i in range(SIZE)]))
        up = draw(st.integers(1, 4))
        down = draw(st.integers(1, SIZE - up))
        gains, weights = (tuple(draw(st.sampled_from([0.5, 1.0, 3.0])) for _ in range(n)) for n in (up, down))
        query = draw(st.sampled_from(QUERIES))
        return TrainingInstance(f"i{number}", "u", Query(query), tuple(ids[:up]), gains, tuple(ids[up : up + down]), weights)

    return [one(number) for number in range(draw(st.integers(1, 4)))]


def reached_by(cascade, query, rewrite):
    """Documents that finerank gets, from the cascade's own trace."""
    rows = cascade.trace([query], [rewrite]).finerank.rows[0]
    return {f"d{row}" for row in rows if row >= 0}


@given(st.data())
def test_the_reward_is_the_bracket_and_the_share_of_d_plus_that_the_rewrite_brings_in(data):
    spec, scorer = narrow(0.7), Whole()
    cascade = cascade_of(spec, scorer)
    instances = instances_with(data.draw)
    texts = [data.draw(st.lists(st.sampled_from([*REWRITES, *QUERIES, ""]), max_size=5)) for _ in instances]
    reward = FusedReward(spec, cascade.signals, cascade.catalogue, cascade.reach)
    bracket = FusedReward(narrow(0.0), cascade.signals, cascade.catalogue)(instances, texts)
    for x, row, own, values in zip(instances, texts, bracket, reward(instances, texts), strict=True):
        for text, expected, got in zip(row, own, values, strict=True):
            gained = reached_by(cascade, x.query.text, text) - reached_by(cascade, x.query.text, None)
            for document, gain in zip(x.positives, x.gains, strict=True):
                expected += 0.7 * gain * (document in gained) / sum(x.gains)
            assert got == pytest.approx(expected, abs=1e-12)
            assert got >= bracket_of(own, row, text) - 1e-12, "what the query reaches is never lost"
    again = reward(instances, texts)  # what the queries reach is known by now
    assert all((a == b).all() for a, b in zip(again, reward(instances, texts), strict=True))


def bracket_of(values, row, text):
    return values[row.index(text)]


def test_reach_alone_is_what_is_gained():
    spec, scorer = narrow(2.0, finerank_weight=0.0), Whole()
    cascade = cascade_of(spec, scorer)
    own = reached_by(cascade, "cat", None)
    gained = {text: reached_by(cascade, "cat", text) - own for text in REWRITES}
    text = next(t for t in REWRITES if gained[t])
    up = (*sorted(gained[text])[:1], *sorted(own)[:1])
    down = next(f"d{i}" for i in range(SIZE) if f"d{i}" not in up)
    x = TrainingInstance("i", "u", Query("cat"), up, (3.0, 1.0), (down,), (1.0,))
    (values,) = FusedReward(spec, cascade.signals, cascade.catalogue, cascade.reach)([x], [[text, "cat", ""]])
    assert values.tolist() == [2.0 * 3 / 4, 0.0, 0.0]


def test_where_the_query_reaches_all_of_d_plus_nothing_is_recalled_for_its_rewrites():
    spec, scorer = narrow(0.7), Whole()
    cascade = cascade_of(spec, scorer)
    calls = []

    def reach(queries, rewrites, rows):
        calls.append(list(rewrites))
        return cascade.reach(queries, rewrites, rows)

    own = sorted(reached_by(cascade, "cat", None))
    down = next(f"d{i}" for i in range(SIZE) if f"d{i}" not in own)
    x = TrainingInstance("i", "u", Query("cat"), tuple(own), (1.0,) * len(own), (down,), (1.0,))
    reward = FusedReward(spec, cascade.signals, cascade.catalogue, reach)
    reward([x], [list(REWRITES)])
    reward([x], [list(REWRITES)])
    assert calls == [[None]]


def test_a_reach_that_could_not_be_scored_is_not_known_and_is_asked_about_again():
    spec = narrow(0.7, finerank_weight=0.0)
    sound = cascade_of(spec, Whole())
    outside = next(f"d{i}" for i in range(SIZE) if f"d{i}" not in reached_by(sound, "cat", None))
    text = next(t for t in REWRITES if outside in {f"d{d}" for d in sound.candidates(["cat"], [t]).rows[0]})
    other = next(f"d{i}" for i in range(SIZE) if f"d{i}" != outside)
    x = TrainingInstance("i", "u", Query("cat"), (outside,), (1.0,), (other,), (1.0,))
    for failing in ("cat", text):
        scorer = Whole(failing)
        cascade = cascade_of(spec, scorer)
        reward = FusedReward(spec, cascade.signals, cascade.catalogue, cascade.reach)
        (values,) = reward([x], [[text, "cat"]])
        assert np.isnan(values[0]) and values[1] == 0.0
        scorer.failing = ()
        assert np.isfinite(reward([x], [[text]])[0]).all()
