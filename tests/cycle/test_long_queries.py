"""A query that no prompt holds: a pasted paragraph must not stop a week."""

import numpy as np

from corewrite.deployment.served import served_rewrites
from corewrite.domain import Query
from corewrite.evaluation.measures import divergence, repair_log_probs
from corewrite.rewriter import new_small_decoder


def test_a_query_over_the_limit_gets_no_rewrite_and_the_others_theirs():
    texts = ["red lion", "how to cook rice"] * 20
    policy, other = (new_small_decoder(texts, seed=seed, vocabulary=300, width=32, layers=1, heads=2) for seed in (1, 2))
    pasted = Query("red lion " * 400)
    queries = [Query("red lion"), pasted, Query("rice")]
    assert policy.template.too_long(pasted)
    found = served_rewrites(policy, queries, max_new_tokens=4)
    assert found[1] is None
    assert [found[0], found[2]] == served_rewrites(policy, [queries[0], queries[2]], max_new_tokens=4)
    apart = divergence(policy, other, queries, found)
    assert apart[1] == 0 and apart[0] > 0 and apart[2] > 0
    log_probs = repair_log_probs(policy, queries, {q.key: "lion" for q in queries})
    assert np.isnan(log_probs).tolist() == [False, True, False]
    assert served_rewrites(policy, [pasted], max_new_tokens=4) == [None]
