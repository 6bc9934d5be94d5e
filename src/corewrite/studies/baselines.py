"""Systems without a language model that every table carries, and how a policy compares with the best of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corewrite.deployment.deployment import Deployment
from corewrite.domain import Query
from corewrite.rewriter.baselines import first_and_last_query, last_query
from corewrite.rewriter.rm3 import RelevanceFeedback, expand

FloatArray = npt.NDArray[np.float64]

BASELINES = ("original", "last_query", "first_and_last_query", "rm3")
"""Systems without a language model: the engine alone, and three that put words behind the query."""
_RESAMPLES = 1_000
_TAIL = 2.5


def baseline_rewrites(deployment: Deployment, queries: Sequence[Query]) -> dict[str, list[str | None]]:
    """Rewrites of every system of `BASELINES` by name."""
    catalogue = deployment.catalogue
    feedback = RelevanceFeedback(lambda row: f"{catalogue.titles[row]} {catalogue.texts[row]}", len(catalogue))
    texts = [q.text for q in queries]
    first = deployment.cascade.search(texts, [None] * len(texts))
    return {
        "original": [None] * len(texts),
        "last_query": [last_query(q) for q in queries],
        "first_and_last_query": [first_and_last_query(q) for q in queries],
        "rm3": expand(feedback, texts, first.rows, np.exp(first.scores)),
    }


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, percentiles of a bootstrap over users."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """How policies stand between the baselines and what can be had.

    Attributes:
        best_baseline: The best of `BASELINES` over all searches.
        over_best_baseline: nDCG@10 of the champion over that of the best baseline. Each resample takes its own best one, so
            that having chosen it is part of the interval.
        recoverable_share: By policy, its share of the way from no rewriter to the recoverable oracle in nDCG@10.
        users: How many users' searches.
    """

    best_baseline: str
    over_best_baseline: Estimate
    recoverable_share: dict[str, Estimate]
    users: int

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class UserSums:
    """nDCG@10 summed by user.

    Attributes:
        sums: By system, float64 [users].
    """

    sums: dict[str, FloatArray]

    @classmethod
    def of(cls, by_search: Mapping[str, FloatArray], user_ids: Sequence[str]) -> "UserSums":
        """Sum the nDCG@10 of each search, [searches] by system, by its user."""
        users, place = np.unique(np.array(user_ids), return_inverse=True)
        return cls({name: np.asarray(np.bincount(place, v, len(users)), np.float64) for name, v in by_search.items()})


def compare(parts: Sequence[UserSums], policies: Sequence[str] = ("warm_start", "champion"), seed: int = 0) -> Comparison:
    """Compare policies with baselines and with the recoverable oracle on the same searches, paired.

    Args:
        parts: One, or those of several platforms, which are pooled; users are drawn again within each.
        policies: Whose shares of the recoverable way are told; `champion` is compared with the best baseline.
        seed: Of the bootstrap.
    """
    names = [*BASELINES, *dict.fromkeys((*policies, "champion")), "recoverable"]
    sums = [np.stack([part.sums[name] for name in names]) for part in parts]
    rng = np.random.default_rng([seed, 53])
    drawn = np.zeros((_RESAMPLES, len(names)))
    for part in sums:
        n = part.shape[1]
        drawn += rng.multinomial(n, np.full(n, 1 / n), _RESAMPLES) @ part.T
    values = np.vstack([sum(part.sum(1) for part in sums), drawn])
    column = {name: values[:, k] for k, name in enumerate(names)}
    baselines = np.stack([column[name] for name in BASELINES])
    way = column["recoverable"] - column["original"]
    return Comparison(
        BASELINES[int(baselines[:, 0].argmax())],
        _estimate(column["champion"] / baselines.max(0)),
        {name: _estimate((column[name] - column["original"]) / way) for name in policies},
        sum(part.shape[1] for part in sums),
    )


def _estimate(values: FloatArray) -> Estimate:
    """Of the figure itself and its resamples behind it."""
    low, high = np.percentile(values[1:], [_TAIL, 100 - _TAIL])
    return Estimate(float(values[0]), float(low), float(high))
