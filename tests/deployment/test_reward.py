"""The recall term of the reward against counting by hand."""

import numpy as np
import pytest

from corewrite.deployment.reward import FusedReward
from corewrite.domain import Catalogue, Query, TrainingInstance
from corewrite.fusion import default_spec


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
