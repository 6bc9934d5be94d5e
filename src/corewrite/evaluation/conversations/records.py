"""Conversations and the passages that answer their turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from corewrite.domain import Context, Query

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Passage:
    """What may be shown for a turn.

    Attributes:
        id: Unique, without white space.
        text: What it says.
    """

    id: str
    text: str


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation.

    Attributes:
        collection: Which collection it comes from, such as cast2021.
        conversation: Id of its conversation.
        number: Its name within the conversation.
        query: As the user typed it.
        human_rewrite: What a person wrote in its place, to be understood alone; None: nobody did.
        earlier_queries: Of the conversation, oldest first.
        earlier_passages: Ids of what was shown before it, oldest first.
        passage: Id of the one relevant passage; None: it is not known.
    """

    collection: str
    conversation: str
    number: str
    query: str
    human_rewrite: str | None
    earlier_queries: tuple[str, ...]
    earlier_passages: tuple[str, ...]
    passage: str | None

    @property
    def id(self) -> str:
        """`CONVERSATION/NUMBER`, as TREC files have it."""
        return f"{self.conversation}/{self.number}"


@dataclass(frozen=True, eq=False)
class ConversationSet:
    """The turns that are measured, over one pool of passages.

    Attributes:
        turns: Those after the first of their conversation whose passage is known.
        passages: The pool.
        passed_over: How many other turns there were: first ones, and those without a passage.
        unknown_earlier: How many different earlier passages are not in the pool: nothing can be said of them in a context.
    """

    turns: Sequence[Turn]
    passages: Sequence[Passage]
    passed_over: int = 0
    unknown_earlier: int = 0

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each passage by its id."""
        return {p.id: row for row, p in enumerate(self.passages)}

    @cached_property
    def own_rows(self) -> IntArray:
        """Row of the relevant passage of each turn, [turns]."""
        return np.array([self.row_of[t.passage] for t in self.turns if t.passage is not None], np.int64)

    def shown_before(self, turn: Turn) -> list[int]:
        """Rows of what was shown before a turn: no candidates any more."""
        return [self.row_of[p] for p in turn.earlier_passages if p in self.row_of]

    @cached_property
    def queries(self) -> list[Query]:
        """What a rewriter sees of each turn: its text, the earlier queries, and the passages shown, as titles."""
        return [self._query(turn) for turn in self.turns]

    def _query(self, turn: Turn) -> Query:
        titles = tuple(self.passages[row].text for row in self.shown_before(turn))
        return Query(turn.query, Context(turn.earlier_queries, titles))
