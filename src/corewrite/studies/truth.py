"""Measurements with the hidden intents, by the only code outside the simulation that may read them; nothing feeds back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.served import fused_lists, served_rewrites
from corewrite.domain import Query, query_to_row
from corewrite.relevance import Judge
from corewrite.rewriter import Rewriter
from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.intents import Intents, grades, intent_named, ndcg10
from corewrite.simulation.possible import PossibleIntents
from corewrite.simulation.week import Week
from corewrite.simulation.world import World
from corewrite.studies.baselines import UserSums
from corewrite.studies.recoverable import best_rewrites, candidate_rewrites, recoverable_rewrites

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrueQuality:
    """Systems measured on held-out searches.

    Attributes:
        ndcg10: By slice (`all`, `clear`, `context_needed`, `misspelt`), then by system.
        searches: Searches of each slice.
        judge: nDCG@10 of the same lists under the judge, by system.
        named: Share of searches whose rewrite (or query) names the whole intent, by system.
        by_search: nDCG@10 by system, float64 [searches].
        rewrites: By system.
        user_ids: Who searched, [searches].
    """

    ndcg10: dict[str, dict[str, float]]
    searches: dict[str, int]
    judge: dict[str, float]
    named: dict[str, float]
    by_search: dict[str, FloatArray]
    rewrites: dict[str, Sequence[str | None]]
    user_ids: tuple[str, ...]

    @property
    def sums(self) -> UserSums:
        """nDCG@10 summed by user."""
        return UserSums.of(self.by_search, self.user_ids)


def measure(
    world: World,
    traffic: TrafficConfig,
    week: Week,
    deployment: Deployment,
    judge: Judge,
    systems: Mapping[str, Sequence[str | None]],
) -> TrueQuality:
    """nDCG@10 of the fused ranking against graded hidden intents; added are the systems `recoverable` and `oracle`.

    Args:
        world: Truth.
        traffic: Habits of the users, for the recoverable oracle.
        week: Held-out searches, answered by `deployment` without a rewriter.
        deployment: Ranks.
        judge: Grades the lists.
        systems: Rewrites of every search by system.
    """
    recoverable = recoverable_rewrites(world, traffic, week.week, week.queries, deployment)
    everyone: dict[str, Sequence[str | None]] = {
        **systems,
        "recoverable": recoverable,
        "oracle": mind_readers_rewrites(world, week, deployment, recoverable),
    }
    lists = {name: fused_lists(deployment, week.queries, rewrites) for name, rewrites in everyone.items()}
    by_search = {name: ndcg10(world, week.intents, rows) for name, rows in lists.items()}
    judged = judge.ndcg10(week.queries, list(lists.values()))
    slices = truth_slices(week)
    named = {
        name: float(
            intent_named(world, week.intents, [r or q.text for r, q in zip(rewrites, week.queries, strict=True)]).mean()
        )
        for name, rewrites in everyone.items()
    }
    return TrueQuality(
        {s: {name: float(v[inside].mean()) for name, v in by_search.items()} for s, inside in slices.items()},
        {s: int(inside.sum()) for s, inside in slices.items()},
        {name: float(v.mean()) for name, v in zip(lists, judged, strict=True)},
        named,
        by_search,
        everyone,
        week.user_ids,
    )


def truth_slices(week: Week) -> dict[str, BoolArray]:
    """Slices by how the query was really typed; `clear` is none of needing context, misspelt, ambiguous."""
    needs = np.array([t.needs_context for t in week.typed], np.bool_)
    misspelt = np.array([t.misspelt for t in week.typed], np.bool_)
    ambiguous = np.array([t.ambiguous for t in week.typed], np.bool_)
    return {
        "all": np.ones(len(week), np.bool_),
        "clear": ~needs & ~misspelt & ~ambiguous,
        "context_needed": needs,
        "misspelt": misspelt,
    }


def before_and_after(
    world: World, week: Week, deployment: Deployment, measured: TrueQuality, n: int = 6
) -> list[dict[str, Any]]:
    """Searches to look at: the largest gains of the champion, each of another query, and the two largest losses."""
    gain = measured.by_search["champion"] - measured.by_search["original"]
    order = np.argsort(-gain, kind="stable")
    # The very top would show only rescued zeros: take gains spread over the upper tenth.
    upper = order[: max(n, len(order) // 10)]
    spread = [int(upper[k]) for k in np.linspace(0, len(upper) - 1, 4 * n).astype(int)]
    chosen = list({week.queries[i].text: i for i in spread if gain[i] > 0}.values())[: n - 2]
    chosen += [int(i) for i in order[::-1][:2] if gain[i] < 0]
    return [_example(world, week, deployment, measured, i) for i in chosen]


def _example(world: World, week: Week, deployment: Deployment, measured: TrueQuality, i: int) -> dict[str, Any]:
    query, rewrite = week.queries[i], measured.rewrites["champion"][i]
    slices = [name for name, inside in truth_slices(week).items() if inside[i] and name != "all"]
    return {
        **query_to_row(query),
        "rewrite": rewrite or "",
        "slice": slices[0] if slices else "other",
        "ndcg_before": float(measured.by_search["original"][i]),
        "ndcg_after": float(measured.by_search["champion"][i]),
        "before": _list(world, week.intents.take(np.array([i])), deployment, query, None),
        "after": _list(world, week.intents.take(np.array([i])), deployment, query, rewrite),
    }


def _list(world: World, intent: Intents, deployment: Deployment, query: Query, rewrite: str | None) -> list[dict[str, Any]]:
    answers = deployment.cascade.search([query.text], [rewrite])
    truth = grades(world, intent, answers.rows)[0]
    catalogue = world.catalogue
    return [
        {
            "rank": k + 1,
            "document_id": catalogue.ids[row],
            "title": catalogue.titles[row],
            "grade": int(truth[k]),
            "score": float(answers.scores[0, k]),
            "factors": {name: float(values[0, k]) for name, values in answers.factors.items()},
        }
        for k, row in enumerate(answers.rows[0])
        if row >= 0
    ]


def lists_ndcg10(world: World, week: Week, rows: IntArray) -> FloatArray:
    """nDCG@10 of ranked lists of a week's searches against graded hidden intents, float64 [searches]."""
    return ndcg10(world, week.intents, rows)


def mind_readers_rewrites(
    world: World, week: Week, deployment: Deployment, recoverable: Sequence[str | None]
) -> list[str | None]:
    """The rewrite of an oracle that knows the intent: whichever ranks best for it of the intent in full, also with usual other
    words or its category, its subject alone, no rewrite, and the `recoverable` oracle's, which is therefore never better."""
    known = [PossibleIntents(week.intents.take(np.array([i])), np.ones(1)) for i in range(len(week))]
    candidates = [
        list(dict.fromkeys([*candidate_rewrites(world, intent), other]))
        for intent, other in zip(known, recoverable, strict=True)
    ]
    return best_rewrites(world, week.queries, candidates, known, deployment)


def oracle_gain(world: World, traffic: TrafficConfig, week: Week, deployment: Deployment) -> float:
    """Relative gain in nDCG@10 of the fused ranking by the rewrite of a mind reader."""
    nothing: list[str | None] = [None] * len(week)
    recoverable = recoverable_rewrites(world, traffic, week.week, week.queries, deployment)
    original, oracle = (
        ndcg10(world, week.intents, fused_lists(deployment, week.queries, rewrites)).mean()
        for rewrites in (nothing, mind_readers_rewrites(world, week, deployment, recoverable))
    )
    return float(oracle / original - 1)


def policy_ndcg10(world: World, week: Week, deployment: Deployment, policy: Rewriter, max_new_tokens: int) -> float:
    """Mean nDCG@10 of a policy's fused ranking."""
    rewrites = served_rewrites(policy, week.queries, max_new_tokens=max_new_tokens)
    return float(ndcg10(world, week.intents, fused_lists(deployment, week.queries, rewrites)).mean())
