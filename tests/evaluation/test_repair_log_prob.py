"""How likely a policy finds a user's repair, whatever it goes on with."""

import numpy as np
import pytest
import torch

from corewrite.domain import Query
from corewrite.evaluation.measures import repair_log_probs
from corewrite.rewriter import Example, fine_tune, new_small_decoder


def test_a_policy_that_says_the_repair_and_goes_on_finds_it_as_likely_as_one_that_stops():
    words = ["cat show now", "dog show now", "red fish today", "blue bird song"] * 8
    stops = new_small_decoder(words, seed=1, vocabulary=300, width=32, layers=1, heads=2)
    goes_on = stops.copy()
    queries, repairs = [Query("cta"), Query("dgo")], ["cat show", "dog show"]
    fine_tune(
        stops,
        [Example(q, r) for q, r in zip(queries, repairs, strict=True)] * 200,
        epochs=4,
        seed=0,
        batch=8,
        learning_rate=1e-2,
    )
    fine_tune(
        goes_on,
        [Example(q, f"{r} now") for q, r in zip(queries, repairs, strict=True)] * 200,
        epochs=4,
        seed=0,
        batch=8,
        learning_rate=1e-2,
    )
    known = {q.key: r for q, r in zip(queries, repairs, strict=True)}
    asked = [*queries, Query("nobody repaired this")]
    found = {name: repair_log_probs(p, asked, known) for name, p in (("stops", stops), ("goes on", goes_on))}
    assert all(np.isnan(row[2]) and (row[:2] > -0.3).all() for row in found.values()), found
    ids = goes_on.template.encode_target("cat show")
    with torch.inference_mode():
        whole = goes_on.log_probs([goes_on.template.encode(queries[0])], [[ids]]).double().sum()
    assert float(whole) / len(ids) < -1, "that it does not stop there is what its end would say"
    alone = found["goes on"][0] * (len(ids) - 1)
    assert float(whole) < alone <= 0 and alone == pytest.approx(float(found["goes on"][0]) * (len(ids) - 1))
