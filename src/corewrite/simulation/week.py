"""The log of a simulated week with its truth, and the interface of a search engine to the platform."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from corewrite.domain import Query
from corewrite.simulation.intents import Intents
from corewrite.simulation.queries import Typed

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

T = TypeVar("T")
DISPLAYED: Final = 10
"""Documents on a page of results."""


@dataclass(frozen=True)
class Asked:
    """A search that waits for its answer.

    Attributes:
        query: What was typed, with its context.
        arm: Of the user.
        user_id, session_id: Whose it is.
        timestamp: When it was typed, seconds since the epoch.
    """

    query: Query
    arm: str
    user_id: str
    session_id: str
    timestamp: float


class Engine(Protocol):
    """What the platform asks of a search engine."""

    def rank(self, asked: Sequence[Asked]) -> "ShownRanking":
        """Answer a batch of searches, each under its user's arm."""
        ...


@dataclass(frozen=True, eq=False)
class ShownRanking:
    """Answers to a batch of searches.

    Attributes:
        rows: Catalogue rows displayed, int64 [searches, 10], -1 pads.
        impacted: Whether the two arms' displayed lists differ, bool [searches].
        columns: Per-document signals and factors of what is displayed, name -> float64 [searches, 10].
        query_ids: Names that the engine gave the searches; empty: it gave none.
    """

    rows: IntArray
    impacted: BoolArray
    columns: dict[str, FloatArray] = field(default_factory=dict)
    query_ids: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Week:
    """What happened, one element per search in the order of time.

    Attributes:
        week: Its number.
        query_ids, user_ids, session_ids, arms: Names.
        queries: What was typed, with its context.
        timestamps: Seconds since the epoch when typed.
        ranking: What was displayed.
        click: Whether each displayed document was clicked, bool [searches, 10].
        watch_seconds: How long it was watched, float64 [searches, 10].
        click_time: When it was clicked, seconds since the epoch, float64 [searches, 10].
        intents: Truth: what each search was after.
        typed: Truth: how it was typed.
        attempt: Truth: 0 for the first query of an intent.
        told: Truth: whether the context named a part of the intent.
        examined: Truth: how far down the list the user looked, int64 [searches].
        felt: Truth: whether the user was content.
    """

    week: int
    query_ids: tuple[str, ...]
    user_ids: tuple[str, ...]
    session_ids: tuple[str, ...]
    arms: tuple[str, ...]
    queries: tuple[Query, ...]
    timestamps: FloatArray
    ranking: ShownRanking
    click: BoolArray
    watch_seconds: FloatArray
    click_time: FloatArray
    intents: Intents
    typed: tuple[Typed, ...]
    attempt: IntArray
    told: BoolArray
    examined: IntArray
    felt: BoolArray

    def __len__(self) -> int:
        return len(self.query_ids)

    def take(self, index: IntArray) -> "Week":
        """The searches at `index`."""

        def some(values: Sequence[T]) -> tuple[T, ...]:
            return tuple(values[i] for i in index)

        columns = {name: values[index] for name, values in self.ranking.columns.items()}
        return Week(
            self.week,
            some(self.query_ids),
            some(self.user_ids),
            some(self.session_ids),
            some(self.arms),
            some(self.queries),
            self.timestamps[index],
            ShownRanking(self.ranking.rows[index], self.ranking.impacted[index], columns),
            self.click[index],
            self.watch_seconds[index],
            self.click_time[index],
            self.intents.take(index),
            some(self.typed),
            self.attempt[index],
            self.told[index],
            self.examined[index],
            self.felt[index],
        )
