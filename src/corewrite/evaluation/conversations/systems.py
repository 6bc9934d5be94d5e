"""What each system puts in the place of a turn's query."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from corewrite.evaluation.conversations.ranker import PassageRanker, best_rows, tie_order
from corewrite.evaluation.conversations.records import ConversationSet
from corewrite.rewriter.baselines import first_and_last_query, last_query
from corewrite.rewriter.rm3 import RelevanceFeedback

RAW, HUMAN, WARM_START, CHAMPION = "raw", "human", "warm_start", "champion"
BASELINES = (RAW, "raw_last", "raw_first_last", "rm3")
"""Systems without a language model: the query alone, and three that put words to it."""
_FEEDBACK = 10
IntArray = npt.NDArray[np.int64]

Rewrites = Sequence[str | None]
"""One of each turn; None: the query stands."""


def baseline_rewrites(data: ConversationSet, ranker: PassageRanker) -> dict[str, Rewrites]:
    """Rewrites of every system of `BASELINES`, and the human's, by name.

    Args:
        data: The turns.
        ranker: Finds the passages whose words RM3 adds, among those that the turn may show.
    """
    return {
        RAW: [None] * len(data.turns),
        "raw_last": [last_query(q) for q in data.queries],
        "raw_first_last": [first_and_last_query(q) for q in data.queries],
        "rm3": _rm3(data, ranker),
        HUMAN: [t.human_rewrite for t in data.turns],
    }


def _rm3(data: ConversationSet, ranker: PassageRanker) -> Rewrites:
    feedback = RelevanceFeedback(lambda row: data.passages[row].text, len(data.passages))
    ties = tie_order([p.id for p in data.passages])
    found = list[str | None]()
    for turn in data.turns:
        (scores,) = ranker.scores([turn.query])
        scores[data.shown_before(turn)] = -np.inf
        rows = best_rows(scores, ties, _FEEDBACK)
        found.append(feedback.rewrite(turn.query, rows, scores[rows]))
    return found
