"""The cascade a stage at a time, with rewrites that come late, and with several of them."""

import numpy as np
import pytest

from corewrite.domain import SignalStatus


def shifted(queries, by=1):
    return [*queries[by:], *queries[:by]]


def staged(cascade, queries, at_recall, at_rawrank, at_finerank):
    candidates = cascade.candidates(queries, at_recall)
    return cascade.finerank(queries, at_finerank, cascade.rawrank(queries, at_rawrank, candidates))


def same(a, b):
    return (
        a.finerank.rows.tobytes() == b.finerank.rows.tobytes()
        and a.order.tobytes() == b.order.tobytes()
        and a.finerank.fusion.log_score.tobytes() == b.finerank.fusion.log_score.tobytes()
        and a.rawrank.fusion.log_score.tobytes() == b.rawrank.fusion.log_score.tobytes()
    )


def test_a_rewrite_that_is_late_counts_exactly_where_a_spec_with_those_stages_lets_it(deployment, queries):
    """The oracle is the spec with the other stages' rewrites taken away."""
    cascade, nothing, rewrites = deployment.cascade, [None] * len(queries), shifted(queries)
    for stages, at in (
        (("recall", "rawrank", "finerank"), (rewrites, rewrites, rewrites)),
        (("rawrank", "finerank"), (nothing, rewrites, rewrites)),
        (("finerank",), (nothing, nothing, rewrites)),
        ((), (nothing, nothing, nothing)),
    ):
        limited = cascade.with_spec(cascade.spec.with_rewrite_stages(stages)).trace(queries, rewrites)
        assert same(staged(cascade, queries, *at), limited), stages
    assert same(staged(cascade, queries, rewrites, rewrites, rewrites), cascade.trace(queries, rewrites))
    assert not same(staged(cascade, queries, nothing, nothing, rewrites), cascade.trace(queries, rewrites))


def test_several_rewrites_average_their_log_factors(deployment, queries):
    cascade = deployment.cascade
    some = [(queries[3], queries[9], queries[20])] * len(queries)
    several = cascade.trace(queries, some)
    alone = [cascade.finerank(queries, [text] * len(queries), _rawranked(cascade, queries, some)) for text in some[0]]
    for i, query in enumerate(queries):
        logs = [a.finerank.fusion.log_rewrite[i] for a, text in zip(alone, some[0], strict=True) if text != query]
        assert np.allclose(several.finerank.fusion.log_rewrite[i], np.mean(logs, axis=0), atol=1e-12)
        factor = several.finerank.fusion.rewrite_factors["relevance"][i]
        assert np.allclose(np.log(factor), several.finerank.fusion.log_rewrite[i], atol=1e-12)
        assert (factor >= 0.5 - 1e-12).all() and (factor <= 2 + 1e-12).all()
    m = cascade.spec.recall.rewrite_candidates
    assert (several.from_rewrite.sum(1) <= m).all()


def test_one_of_several_that_is_the_query_or_a_repeat_is_none(deployment, queries):
    cascade, other = deployment.cascade, shifted(queries, 5)
    plain = cascade.trace(queries, other)
    assert same(cascade.trace(queries, [(o, q, o, "") for o, q in zip(other, queries, strict=True)]), plain)
    assert same(cascade.trace(queries, [(o,) for o in other]), plain)
    assert same(cascade.trace(queries, [()] * len(queries)), cascade.trace(queries, [None] * len(queries)))


def test_a_batch_may_mix_one_several_and_none(deployment, queries):
    cascade = deployment.cascade
    mixed = [None, queries[7], (queries[8], queries[12])]
    together = cascade.trace(queries[:3], mixed)
    for i, rewrite in enumerate(mixed):
        alone = cascade.trace([queries[i]], [rewrite])
        ranked = [t.finerank.rows[j][t.order[j]] for t, j in ((together, i), (alone, 0))]
        assert ranked[0][ranked[0] >= 0].tolist() == ranked[1][ranked[1] >= 0].tolist()
    assert [together.finerank.fusion.status["relevance"][i] for i in range(3)] == [
        SignalStatus.NEUTRAL, SignalStatus.OK, SignalStatus.OK
    ]  # fmt: skip
    assert (together.finerank.fusion.log_rewrite[0] == 0).all()


def test_a_score_that_failed_under_one_of_several_is_told(deployment, queries, monkeypatch):
    full = deployment.cascade.signals["relevance"]
    own = full.score

    def score(texts, rows):
        values = own(texts, rows)
        values[[t == queries[9] for t in texts]] = np.nan
        return values

    monkeypatch.setattr(full, "score", score)
    traced = deployment.cascade.trace([queries[0]], [(queries[3], queries[9])])
    assert traced.finerank.fusion.status["relevance"][0] == SignalStatus.ERROR
    monkeypatch.undo()
    half = deployment.cascade.finerank(
        [queries[0]], [queries[3]], _rawranked(deployment.cascade, [queries[0]], [(queries[3], queries[9])])
    )
    assert traced.finerank.fusion.log_rewrite[0] == pytest.approx(half.finerank.fusion.log_rewrite[0] / 2)


def _rawranked(cascade, queries, rewrites):
    return cascade.rawrank(queries, rewrites, cascade.candidates(queries, rewrites))
