"""The recall term of the reward against counting by hand; the identity is exactly neutral; failed scores stay failed."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.deployment.reward import FusedReward
from corewrite.domain import Catalogue, Query, TrainingInstance
from corewrite.fusion import RewriteSignal, default_spec
from corewrite.search import Cascade


class Constant:
    """Every text is as relevant as any other: all factors are 1."""

    model_hash = "constant"

    def score(self, texts, rows):
        return np.full(rows.shape, 0.5)


def documents(ids):
    n = len(ids)
    return Catalogue(tuple(ids), tuple(ids), ("",) * n, np.zeros((n, 0), np.float32), np.ones(n), np.ones(n))


LISTS = {"cat": [0, 1, 2, 3], "cat show": [4, 3, 0, 2], "dog": []}


def spec_with(weight, m):
    spec = default_spec()
    return spec.model_copy(
        update={
            "reward": spec.reward.model_copy(update={"recall_weight": weight}),
            "recall": spec.recall.model_copy(update={"rewrite_candidates": m}),
        }
    )


def test_the_recall_term_is_the_gained_share_of_satisfying_documents():
    catalogue = documents("abcde")
    instance = TrainingInstance("i", "u", Query("cat"), ("a", "e"), (1.0, 3.0), ("b",), (1.0,), 0.0)
    scorers = {name: Constant() for name in ("relevance", "dense")}

    def recall(texts):
        return [np.array(LISTS[t], np.int64) for t in texts]

    for m, expected in ((1, {"cat show": 0.5 - 0.5, "dog": -0.5}), (4, {"cat show": 1.0 - 0.5, "dog": -0.5})):
        reward = FusedReward(spec_with(0.4, m), scorers, catalogue, recall)
        (values,) = reward([instance], [["cat", "cat show", "dog"]])
        # m = 1: "cat" finds a, "cat show" finds e, each half of D+.
        assert values == pytest.approx([0.0, 0.4 * expected["cat show"], 0.4 * expected["dog"]])


def test_a_recall_weight_needs_a_recall():
    with pytest.raises(ValueError, match="lambda_rec"):
        FusedReward(spec_with(0.1, 5), {}, documents(""))


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


def spec_of(form, recall_weight):
    spec = default_spec()
    only = {"rewrite": (FORMS[form],)}
    return spec.model_copy(
        update={
            "rawrank": spec.rawrank.model_copy(update=only),
            "finerank": spec.finerank.model_copy(update=only),
            "reward": spec.reward.model_copy(update={"recall_weight": recall_weight}),
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
    reward = FusedReward(spec, signals, catalogue, lambda texts: cascade.recall(texts, 2))
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
