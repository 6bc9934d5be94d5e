"""What a ranker's signals are where a query and a document have nothing to do with each other: what eps must not be below."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corewrite.deployment.deployment import Deployment


@dataclass(frozen=True)
class RandomPairs:
    """A rewrite signal's floor beside its scores of random pairs.

    Attributes:
        stage: Stage of the fusion spec.
        signal: Name of the signal.
        eps: Floor of the rewrite factor.
        third_quartile: 75th percentile of the signal on random pairs of a query and a document.
        rewarded: Whether the factor counts in the reward: finerank's do; of rawrank's only which documents they let in does.
    """

    stage: str
    signal: str
    eps: float
    third_quartile: float
    rewarded: bool

    @property
    def advice(self) -> str | None:
        """One sentence where differences between documents that have nothing to do with the query are rewarded; else None."""
        if not self.rewarded or self.third_quartile <= self.eps:
            return None
        scale = 10.0 ** (2 - math.floor(math.log10(self.third_quartile)))
        wanted = math.ceil(self.third_quartile * scale) / scale  # three digits, and none too few
        return (
            f"eps {self.eps:g} of the rewrite signal {self.signal!r} in {self.stage} is below {self.third_quartile:.3g}, the "
            "75th percentile of its scores on random pairs: what means nothing is rewarded; write eps: "
            f"{wanted:g} in the fusion spec"
        )


def random_pairs(deployment: Deployment, queries: Sequence[str], *, seed: int) -> tuple[RandomPairs, ...]:
    """Score each query with a random document, and set the quartile beside eps, in the spec's order.

    Args:
        deployment: Ranker and spec.
        queries: Texts, a few hundred or more.
        seed: Of the documents.
    """
    rows = np.random.default_rng([seed, 75]).integers(len(deployment.documents), size=(len(queries), 1))
    terms = [(name, term) for name, stage in deployment.spec.stages.items() for term in stage.rewrite]
    scores = {
        name: deployment.ranker.signals[name].score(queries, rows) for name in dict.fromkeys(term.signal for _, term in terms)
    }
    rewarded = {"finerank"} if deployment.spec.reward.finerank_weight else set()
    return tuple(
        RandomPairs(stage, term.signal, term.eps, float(np.nanpercentile(scores[term.signal], 75)), stage in rewarded)
        for stage, term in terms
        if np.isfinite(scores[term.signal]).any()
    )
