"""Every system's rewrites ranked alone and fused, and what that comes to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from corewrite.domain.text import is_identity
from corewrite.evaluation.conversations.fused import fused_scores
from corewrite.evaluation.conversations.ranker import PassageRanker, rank_of, tie_order
from corewrite.evaluation.conversations.records import ConversationSet
from corewrite.evaluation.conversations.systems import Rewrites
from corewrite.fusion import StageSpec

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mode = Literal["alone", "fused"]
MODES: tuple[Mode, ...] = ("alone", "fused")
_BLOCK = 64
"""Turns that are scored at once: a large pool must not fill the memory."""


@dataclass(frozen=True)
class Measured:
    """What was ranked: by which ranker, of which system, how."""

    ranker: str
    system: str
    mode: Mode


@dataclass(frozen=True, eq=False)
class ScoredTurns:
    """Scores of some turns.

    Attributes:
        about: What was ranked.
        first: Place of the first of the turns.
        scores: Float64 [turns, passages]; -inf where a passage is no candidate or not found.
    """

    about: Measured
    first: int
    scores: FloatArray


def score_turns(
    data: ConversationSet,
    rewrites: Mapping[str, Rewrites],
    rankers: Sequence[PassageRanker],
    stage: StageSpec,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[ScoredTurns]:
    """Score all candidates of all turns, by every ranker and system, alone and fused.

    Args:
        data: The turns.
        rewrites: Of each system by its name.
        rankers: By which.
        stage: How a turn's own signal and its rewrite's are fused.
        progress: Called with (blocks done, of how many).
    """
    starts = range(0, len(data.turns), _BLOCK)
    total, done = len(rankers) * len(starts), 0
    for ranker in rankers:
        for first in starts:
            turns = data.turns[first : first + _BLOCK]
            own = ranker.scores([t.query for t in turns])
            for system, said in rewrites.items():
                some = said[first : first + _BLOCK]
                given = np.array([not is_identity(t.query, r) for t, r in zip(turns, some, strict=True)])
                new = own.copy()
                if given.any():
                    new[given] = ranker.scores([r or "" for r, there in zip(some, given, strict=True) if there])
                fused = fused_scores(stage, ranker.calibration, own, new, given)
                for mode, scores in zip(MODES, (new, fused), strict=True):
                    for row, turn in zip(scores, turns, strict=True):
                        row[data.shown_before(turn)] = -np.inf
                    yield ScoredTurns(Measured(ranker.name, system, mode), first, scores)
            done += 1
            progress(done, total)


def collect_ranks(
    data: ConversationSet, scored: Iterator[ScoredTurns], observe: Callable[[ScoredTurns], None] = lambda scored: None
) -> dict[Measured, IntArray]:
    """Rank of the relevant passage of each turn, int64 [turns], 0 where it is not found.

    Args:
        data: The turns.
        scored: See `score_turns`.
        observe: Shown all scores too.
    """
    ties = tie_order([p.id for p in data.passages])
    found: dict[Measured, IntArray] = {}
    for some in scored:
        ranks = found.setdefault(some.about, np.zeros(len(data.turns), np.int64))
        for i, scores in enumerate(some.scores, some.first):
            ranks[i] = rank_of(scores, int(data.own_rows[i]), ties)
        observe(some)
    return found
