"""Examples that add words: they come from what the deployment's own engine recalls for the text that satisfied."""

import numpy as np
import pytest

from corewrite.cycle.candidate_config import WarmStartConfig
from corewrite.cycle.steps.warm_start import warm_start, weekly_examples
from corewrite.domain import Query
from corewrite.logs import Reformulation


@pytest.fixture(scope="module")
def satisfied(deployment):
    texts = [" ".join(deployment.catalogue.titles[i].split()[:2]) for i in range(60)]
    return [Reformulation(Query(text), text, f"u{i}") for i, text in enumerate(texts)]


def targets(satisfied, deployment, share):
    found = weekly_examples([], satisfied, deployment, 2_000, expanded_share=share, seed=5)
    return [(e.query.text, e.target) for e in found]


def test_what_is_added_is_held_by_half_of_the_first_results(deployment, satisfied):
    plain, longer = (targets(satisfied, deployment, share) for share in (0.0, 1.0))
    assert len(plain) == len(longer)
    catalogue, num_longer = deployment.catalogue, 0
    for (query, before), (same, after) in zip(plain, longer, strict=True):
        assert query == same and after.startswith(before)
        if after == before:
            continue
        num_longer += 1
        rows = deployment.cascade.recall([before], 10)[0][:10]
        held = [{*f"{catalogue.titles[r]} {catalogue.texts[r]}".split()} for r in rows]
        for word in after[len(before) :].split():
            assert np.mean([word in words for words in held]) >= 0.5, (before, word)
    assert num_longer > len(plain) / 4


def test_a_share_of_zero_asks_the_engine_nothing(deployment, satisfied, monkeypatch):
    monkeypatch.setattr(type(deployment.cascade), "recall", lambda *_: pytest.fail("asked"))
    assert targets(satisfied, deployment, 0.0)


def test_so_few_examples_that_no_kind_has_one_are_refused_in_words(deployment, satisfied):
    with pytest.raises(ValueError, match="fine-tuning needs examples"):
        warm_start([], satisfied, deployment, WarmStartConfig(examples=1), seed=5)
