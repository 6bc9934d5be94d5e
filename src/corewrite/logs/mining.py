"""From outcomes to what training needs: instances with D+ and D-, reformulations, impressions with propensities."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain import Context, Documents, Outcome, Query, TrainingInstance, keyed_uniform, normalise, text_key
from corewrite.domain.documents import known_ids
from corewrite.domain.extras import from_extra
from corewrite.logs.outcomes import Outcomes

FloatArray = npt.NDArray[np.float64]
_LOWEST_PROPENSITY = 0.1
_PURPOSE = 51


@dataclass(frozen=True, eq=False)
class Propensity:
    """Relative probability that a position is examined, 1 at the top, never rising.

    Attributes:
        by_position: Positions 1, 2, ..., float64.
    """

    by_position: FloatArray

    def at(self, positions: npt.NDArray[np.integer]) -> FloatArray:
        """Propensity of 1-based `positions`; beyond the last known one, the last."""
        return np.asarray(self.by_position[np.minimum(positions, len(self.by_position)) - 1])


@dataclass(frozen=True)
class Reformulation:
    """A query and the text its user was satisfied by.

    Attributes:
        query: What was typed, with its context.
        target: The later query of the chain that satisfied, or the query itself where it did.
        user_id: Whose.
    """

    query: Query
    target: str
    user_id: str


@dataclass(frozen=True, eq=False)
class ImpressionTable:
    """Examined results, aligned: for a relevance model.

    Attributes:
        query, document_id, user_id: Object arrays.
        position: 1-based.
        propensity: Of the position.
        clicked, satisfied: What happened.
    """

    query: npt.NDArray[np.object_]
    document_id: npt.NDArray[np.object_]
    user_id: npt.NDArray[np.object_]
    position: npt.NDArray[np.int64]
    propensity: FloatArray
    clicked: npt.NDArray[np.bool_]
    satisfied: npt.NDArray[np.bool_]


def fit_propensity(outcomes: Outcomes, *, iterations: int = 100, minimum_clicks: int = 200) -> Propensity:
    """Fit a position-based click model by expectation-maximisation (Wang et al. 2018, without their regression).

    Attractiveness is kept per (query, document) with a prior, so that pairs seen once say little of it; the positions' curve
    is made non-increasing by pooling (isotonic regression).

    Raises:
        ValueError: fewer than `minimum_clicks` clicks on displayed results.
    """
    # Imported where it is used: a server, which fits nothing, starts without it.
    pair: dict[tuple[str, str], int] = {}
    pairs, positions, clicks = [], [], []
    for i, hits in enumerate(outcomes.hit_ids):
        for position, document in enumerate(hits):
            pairs.append(pair.setdefault((outcomes.query[i], document), len(pair)))
            positions.append(position)
            clicks.append(document in outcomes.clicked[i])
    if sum(clicks) < minimum_clicks:
        raise ValueError(
            f"examination propensities need {minimum_clicks} clicks on displayed results, the log has {sum(clicks)}"
        )
    with from_extra("train", "examination propensities are fitted by scikit-learn"):
        from sklearn.isotonic import IsotonicRegression
    p, k, c = np.array(pairs), np.array(positions), np.array(clicks)
    shown_at = np.bincount(k)
    examine = np.linspace(1.0, 0.3, len(shown_at))  # 1 is a fixed point of the update: the top sets the scale
    attract = np.full(len(pair), c.mean())
    prior = 2.0
    for _ in range(iterations):
        both = 1 - examine[k] * attract[p]
        seen = np.where(c, 1.0, examine[k] * (1 - attract[p]) / both)
        liked = np.where(c, 1.0, attract[p] * (1 - examine[k]) / both)
        examine = np.bincount(k, seen) / np.maximum(shown_at, 1)
        attract = (np.bincount(p, liked) + prior * c.mean()) / (np.bincount(p) + prior)
    curve = (
        IsotonicRegression(increasing=False).fit(np.arange(len(examine)), examine, shown_at).predict(np.arange(len(examine)))
    )
    return Propensity(np.clip(curve / curve[0], 0.01, 1.0))


def examined(outcomes: Outcomes, i: int) -> int:
    """How many displayed results of search `i` count as examined: down to one below the lowest click; three without one."""
    hits = outcomes.hit_ids[i]
    lowest = max((k for k, d in enumerate(hits, 1) if d in outcomes.clicked[i]), default=0)
    return min(len(hits), lowest + 1 if lowest else 3)


def build_query(outcomes: Outcomes, i: int) -> Query:
    """Search `i` with its context."""
    return Query(outcomes.query[i], Context(outcomes.context_queries[i], outcomes.context_titles[i], outcomes.locale[i]))


def mine_instances(
    outcomes: Outcomes,
    propensity: Propensity,
    documents: Documents,
    *,
    seed: int,
    max_negatives: int = 8,
    user_filter: Callable[[str], bool] = lambda user: True,
) -> list[TrainingInstance]:
    """Training instances, in the order of time: a search with a satisfying and an examined unsatisfying document.

    D+: what satisfied here (gain 1) or later in the chain (gain 1), twice the gain where it was also the longest watched of the
    chain. D-: examined and satisfying nowhere in the chain, weight 1 / propensity (at most 10), and one random document that
    brings a tenth of the weight at most, drawn once per instance.

    Args:
        outcomes: The log.
        propensity: Of examination.
        documents: Those that exist; others are dropped.
        seed: For the random negatives.
        max_negatives: Examined negatives per instance at most, the highest ranked first.
        user_filter: Which users may be mined (the gate's are kept out).
    """
    known = _known(outcomes, documents)
    instances = []
    for chain in _chains(outcomes):
        if not user_filter(outcomes.user_id[chain[0]]):
            continue
        everywhere = {d for i in chain for d in outcomes.satisfied[i]}
        longest = max(
            ((w, d) for i in chain for d, w in outcomes.clicked[i].items() if d in everywhere and w == w), default=(0.0, "")
        )[1]
        rejected: dict[str, float] = {}
        for i in chain:
            for k, d in enumerate(outcomes.hit_ids[i][: examined(outcomes, i)], 1):
                if d not in everywhere and d in known:
                    weight = 1.0 / max(_LOWEST_PROPENSITY, float(propensity.at(np.array(k))))
                    rejected[d] = max(rejected.get(d, 0.0), weight)
        for place, i in enumerate(chain):
            good = dict.fromkeys(d for j in chain[place:] for d in outcomes.satisfied[j] if d in known)
            own = outcomes.hit_ids[i][: examined(outcomes, i)]
            # The search's own rejected results first, then those of the rest of the chain.
            bad = dict.fromkeys([d for d in own if d in rejected] + list(rejected))
            negatives = list(bad)[:max_negatives]
            if not good or not negatives:
                continue
            weights = [rejected[d] for d in negatives]
            random = documents.id_at(int(keyed_uniform(seed, text_key(outcomes.query_id[i]), _PURPOSE) * len(documents)))
            if random not in everywhere and random not in bad:
                negatives.append(random)
                weights.append(sum(weights) / 9)
            instances.append(
                TrainingInstance(
                    outcomes.query_id[i],
                    outcomes.user_id[i],
                    build_query(outcomes, i),
                    tuple(good),
                    tuple(2.0 if d == longest else 1.0 for d in good),
                    tuple(negatives),
                    tuple(weights),
                    float(outcomes.timestamp[i]),
                )
            )
    return sorted(instances, key=lambda x: (x.timestamp, x.instance_id))


def mine_reformulations(
    outcomes: Outcomes, user_filter: Callable[[str], bool] = lambda user: True
) -> tuple[list[Reformulation], list[Reformulation]]:
    """What users' own repairs teach: (failed query, later query of the chain that satisfied), and queries good as they are."""
    successful_reformulations, satisfied_queries = [], []
    for chain in _chains(outcomes):
        user = outcomes.user_id[chain[0]]
        if not user_filter(user):
            continue
        for place, i in enumerate(chain):
            if outcomes.satisfied[i]:
                satisfied_queries.append(Reformulation(build_query(outcomes, i), normalise(outcomes.query[i]), user))
                continue
            later = next((j for j in chain[place + 1 :] if outcomes.satisfied[j]), None)
            if later is not None and normalise(outcomes.query[later]) != normalise(outcomes.query[i]):
                successful_reformulations.append(
                    Reformulation(build_query(outcomes, i), normalise(outcomes.query[later]), user)
                )
    return successful_reformulations, satisfied_queries


def labelled_impressions(
    outcomes: Outcomes, propensity: Propensity, documents: Documents, user_filter: Callable[[str], bool] = lambda user: True
) -> ImpressionTable:
    """Examined results with what happened to them; documents that do not exist are dropped."""
    known = _known(outcomes, documents)
    rows = [
        (outcomes.query[i], d, outcomes.user_id[i], k, d in outcomes.clicked[i], d in outcomes.satisfied[i])
        for i in range(len(outcomes))
        if user_filter(outcomes.user_id[i])
        for k, d in enumerate(outcomes.hit_ids[i][: examined(outcomes, i)], 1)
        if d in known
    ]
    if not rows:
        raise ValueError("no displayed document of the log is in the catalogue: are these the documents of this log?")
    query, document, user, position, clicked, satisfied = zip(*rows, strict=True)
    at = np.array(position, np.int64)
    return ImpressionTable(
        np.array(query, object),
        np.array(document, object),
        np.array(user, object),
        at,
        propensity.at(at),
        np.array(clicked, np.bool_),
        np.array(satisfied, np.bool_),
    )


def _known(outcomes: Outcomes, documents: Documents) -> set[str]:
    """The documents of the log that exist."""
    return known_ids(documents, (d for several in (*outcomes.hit_ids, *outcomes.satisfied) for d in several))


def _chains(outcomes: Outcomes) -> Iterator[list[int]]:
    """Places of the searches of each chain, oldest first; censored searches are left out."""
    chains: dict[int, list[int]] = defaultdict(list)
    for i, number in enumerate(outcomes.chain.tolist()):
        if outcomes.outcome[i] != Outcome.CENSORED:
            chains[number].append(i)
    yield from chains.values()
