"""What a rewrite may and may not do to an answer."""

import numpy as np
import pytest

from corewrite.fusion import parse_spec, stage_bound
from corewrite.search import Cascade, EmbeddedEngine, top_overlap


def shifted(queries):
    return [*queries[1:], queries[0]]


def test_no_rewrite_is_byte_identical_to_a_system_without_a_rewriter(deployment, queries):
    without = deployment.cascade.with_spec(deployment.spec.with_rewrite_stages(()))
    nothing: list[str | None] = [None] * len(queries)
    plain = without.search(queries, nothing)
    for rewrites in (nothing, queries, [""] * len(queries)):
        answers = deployment.cascade.search(queries, rewrites)
        assert answers.rows.tobytes() == plain.rows.tobytes()
        assert answers.scores.tobytes() == plain.scores.tobytes()


def test_a_rewrite_next_door_changes_nothing(deployment, queries):
    """One request of a batch has a rewrite, the others must not notice."""
    rewrites = [None] * len(queries)
    plain = deployment.cascade.search(queries, rewrites)
    rewrites[3] = queries[7]
    answers = deployment.cascade.search(queries, rewrites)
    others = np.arange(len(queries)) != 3
    assert (answers.rows[others] == plain.rows[others]).all()
    assert answers.scores[others].tobytes() == plain.scores[others].tobytes()


def test_recall_is_a_union_and_rawrank_protects_the_original_candidates(deployment, queries):
    depths = deployment.spec.depths.model_copy(update={"finerank": 20, "protected": 25})
    spec = deployment.spec.model_copy(update={"depths": depths})
    cascade = deployment.cascade.with_spec(spec)
    plain = cascade.trace(queries, [None] * len(queries))
    traced = cascade.trace(queries, shifted(queries))
    m = spec.recall.rewrite_candidates
    gained = 0
    for i in range(len(queries)):
        original = set(plain.rawrank.rows[i][plain.rawrank.rows[i] >= 0])
        candidates = set(traced.rawrank.rows[i][traced.rawrank.rows[i] >= 0])
        assert original <= candidates and len(candidates) <= len(original) + m
        gained += len(candidates - original)
        # Without the rewriter finerank would have got these: with it, it still does.
        reached = set(plain.finerank.rows[i][plain.finerank.rows[i] >= 0])
        assert reached <= set(traced.finerank.rows[i]) | {-1}
    assert gained > 0


def test_factors_multiply_to_the_score_and_the_shift_is_bounded(deployment, queries):
    answers = deployment.cascade.search(queries, shifted(queries))
    there = answers.rows >= 0
    product = np.prod(list(answers.factors.values()), axis=0)
    assert np.allclose(product[there], np.exp(answers.scores[there]), rtol=1e-12)
    rewrite_only = np.prod([v for n, v in answers.factors.items() if n.startswith("rewrite.")], axis=0)
    assert (np.abs(np.log(rewrite_only)) <= stage_bound(deployment.spec.finerank) + 1e-12).all()
    assert (rewrite_only != 1).any()


def test_results_are_sorted_and_the_batch_does_not_matter(deployment, queries):
    together = deployment.cascade.search(queries, shifted(queries))
    assert (np.diff(np.where(np.isfinite(together.scores), together.scores, -1e9), axis=1) <= 0).all()
    for i in (0, 5, len(queries) - 1):
        alone = deployment.cascade.search([queries[i]], [shifted(queries)[i]])
        assert (alone.rows[0] == together.rows[i]).all()


def test_dense_recall_equals_brute_force(deployment):
    dense = deployment.cascade.signals["dense"]
    vectors = dense.embed_texts(deployment.catalogue.titles[:20])
    engine = EmbeddedEngine(deployment.catalogue, dense.document_vectors)
    found = engine.search_vector(vectors, 10)
    similarity = vectors @ dense.document_vectors.T
    for i, rows in enumerate(found):
        best = np.sort(similarity[i])[::-1][:10]
        assert np.allclose(np.sort(similarity[i][rows])[::-1], best, atol=1e-5)


def test_lexical_recall_finds_the_words(deployment):
    engine = EmbeddedEngine(deployment.catalogue, deployment.cascade.signals["dense"].document_vectors)
    word = deployment.catalogue.titles[0].split()[0]
    found = engine.search_text([word, "", '"*:( AND'], 2_000)
    rows = found[0][found[0] >= 0]
    documents = zip(deployment.catalogue.titles, deployment.catalogue.texts, strict=True)
    holders = {i for i, (title, text) in enumerate(documents) if word in f"{title} {text}".split()}
    assert set(rows.tolist()) == holders
    assert (found[1:] == -1).all()


def test_unknown_signals_and_lengths_are_refused(deployment):
    spec = parse_spec("rawrank: {original: [{signal: prior, eps: 0.1}]}\nfinerank: {original: [{signal: freshness, eps: 0.1}]}")
    with pytest.raises(ValueError, match="freshness"):
        deployment.cascade.with_spec(spec)
    with pytest.raises(ValueError, match="1 queries but 2 rewrites"):
        deployment.cascade.search(["a"], [None, None])
    assert isinstance(deployment.cascade, Cascade)


def test_overlap_of_a_text_with_itself_is_whole(deployment, queries):
    overlap = top_overlap(deployment.cascade)
    values = overlap([(queries[0], queries[0]), (queries[0], queries[1]), (queries[0], "nothingknown")])
    assert values[0] == 1.0 and 0 <= values[1] <= 1 and values[2] == 0
