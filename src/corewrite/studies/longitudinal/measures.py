"""Measures of each arm of a longitudinal simulation in a week."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corewrite.cycle import read_window
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.served import fused_lists, log_rewards, served_rewrites
from corewrite.domain import Outcome, TrainingInstance
from corewrite.domain.traffic_split import HOLDBACK
from corewrite.logs import SatisfactionThresholds
from corewrite.relevance import Judge
from corewrite.search import top_overlap
from corewrite.simulation.week import Week
from corewrite.simulation.world import World
from corewrite.studies.longitudinal.production import Production
from corewrite.studies.truth import lists_ndcg10

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WeeklyValue:
    """What an arm's production is worth in a week.

    Attributes:
        ndcg10: Against hidden intents, float64 [searches].
        lists: What it shows, rows int64 [searches, 10].
        reward: Mean log R, nats.
        words: Mean length of what is searched for, words.
    """

    ndcg10: FloatArray
    lists: IntArray
    reward: float
    words: float


def count_endings(log: Path, deployment: Deployment, thresholds: SatisfactionThresholds | None) -> pa.Table:
    """Searches that ended, were changed and were given up, by user, of users who may see a rewrite."""
    window = read_window(log, overlap=top_overlap(deployment.cascade), thresholds=thresholds)
    outcome, user = window.outcomes.outcome, window.outcomes.user_id
    counted = (outcome != Outcome.CENSORED) & (window.outcomes.arm != HOLDBACK)
    names, of = np.unique(user[counted].astype(str), return_inverse=True)
    kept = outcome[counted]
    return pa.table(
        {
            "user_id": names,
            "ended": np.bincount(of, minlength=len(names)),
            "changed": np.bincount(of, kept == Outcome.CHANGED, len(names)).astype(np.int64),
            "gave_up": np.bincount(of, kept == Outcome.GAVE_UP, len(names)).astype(np.int64),
        }
    )


def measure(
    world: World, production: Production, searches: Week, instances: Sequence[TrainingInstance], *, max_new_tokens: int
) -> WeeklyValue:
    """Truth and lists of the searches, and the reward.

    Args:
        world: Truth.
        production: What serves the arm.
        searches: The measured searches of the week.
        instances: Of gate users, from the week before, for the reward.
        max_new_tokens: Length limit of a rewrite.
    """
    policy, deployment = production.policy, production.deployment
    rewrites: list[str | None] = [None] * len(searches)
    log_reward = 0.0
    if policy is not None:
        rewrites = served_rewrites(policy, searches.queries, max_new_tokens=max_new_tokens)
        on_gate = served_rewrites(policy, [x.query for x in instances], max_new_tokens=max_new_tokens)
        log_reward = float(log_rewards(deployment, instances, on_gate).mean())
    lists = fused_lists(deployment, searches.queries, rewrites)
    texts = [r or q.text for q, r in zip(searches.queries, rewrites, strict=True)]
    words = float(np.mean([len(t.split()) for t in texts]))
    return WeeklyValue(lists_ndcg10(world, searches, lists), lists, log_reward, words)


def week_rows(
    searches: Week,
    production: Mapping[str, Production],
    measured: Mapping[str, WeeklyValue],
    endings: Mapping[str, pa.Table],
    judge: Judge,
) -> dict[str, dict[str, Any]]:
    """The rows of a week, by arm.

    Args:
        searches: The measured searches.
        production: What serves the arms.
        measured: What it is worth, by arm in the same order.
        endings: How the arm's searches ended, see `count_endings`.
        judge: Of the lists.
    """
    judged = judge.ndcg10(searches.queries, [m.lists for m in measured.values()])
    rows = {}
    for (arm, p), ndcg10 in zip(production.items(), judged, strict=True):
        table, of = endings[arm], measured[arm]
        ended = int(np.sum(table["ended"].to_numpy()))
        rows[arm] = {
            "cqr": float(np.sum(table["changed"].to_numpy()) / ended),
            "give_up": float(np.sum(table["gave_up"].to_numpy()) / ended),
            "searches": ended,
            "reward": of.reward,
            "words": of.words,
            "judge": float(ndcg10.mean()),
            "ndcg10": float(of.ndcg10.mean()),
            "verdict": None,
            "policy": p.name,
            "relevance": p.deployment.model_hash,
            "spec": p.deployment.spec.spec_hash,
        }
    return rows
