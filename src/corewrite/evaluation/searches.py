"""The searches that candidates are compared on, with everything about them that does not depend on a policy."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from corewrite.domain import Query, TrainingInstance, normalise, words
from corewrite.domain.filters import NO_FILTERS, RewriteFilters
from corewrite.evaluation.measures import canary_queries, repairs_by_query
from corewrite.gate import Absent
from corewrite.logs import Reformulation

BoolArray = npt.NDArray[np.bool_]
_CANARIES = 100


OF_A_WARM_START = Absent("the baseline is a warm start, which was fitted to repairs: whatever is trained moves away from them")
"""In the place of repairs, where there is no champion yet."""


@dataclass(frozen=True, eq=False)
class GateSearches:
    """Searches of users that training never saw.

    Attributes:
        fresh: Of the week's gate users, with D+ and D-.
        frequency: How often each normalised query stood in the training log, for head, torso and tail.
        frozen: Of the set that never changes: a slice of their own.
        before: The same frequencies in earlier weeks, for the slice of what is new; empty: there is none.
        successful_reformulations: Gate users' own; absent where they tell no side from the other, see `OF_A_WARM_START`.
        protected_words: Words that a rewrite should not drop from a query; see `find_protected_words`.
        filters: What no rewrite may bring in.
    """

    fresh: Sequence[TrainingInstance]
    frequency: Mapping[str, int]
    frozen: Sequence[TrainingInstance] = ()
    before: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    successful_reformulations: Sequence[Reformulation] | Absent = ()
    protected_words: frozenset[str] = frozenset()
    filters: RewriteFilters = NO_FILTERS

    @cached_property
    def instances(self) -> list[TrainingInstance]:
        """All searches: the fresh ones, then the frozen set's."""
        return [*self.fresh, *self.frozen]

    @cached_property
    def queries(self) -> list[Query]:
        """The query of each search."""
        return [x.query for x in self.instances]

    @cached_property
    def user_ids(self) -> list[str]:
        """Whose each is; a user of the frozen set who is one of the week's too is resampled as one."""
        return [x.user_id for x in self.instances]

    @cached_property
    def slices(self) -> dict[str, BoolArray]:
        """Slices of the fresh searches, one of the frozen set's, and one of what is new; bool [searches] each."""
        frozen = np.arange(len(self.queries)) >= len(self.fresh)
        slices = {name: inside & ~frozen for name, inside in build_slices(self.queries, self.frequency).items()}
        if frozen.any():
            slices["frozen"] = frozen
        if self.before:
            slices["new"] = _new(self.queries, self.frequency, self.before) & ~frozen
        return slices

    @cached_property
    def repairs(self) -> dict[str, str]:
        """The text that satisfied later, by the key of the query that did not."""
        return {} if isinstance(self.successful_reformulations, Absent) else repairs_by_query(self.successful_reformulations)

    @cached_property
    def canaries(self) -> list[Query]:
        """Fresh searches with an instruction planted."""
        return canary_queries([x.query for x in self.fresh], _CANARIES)


def build_slices(queries: Sequence[Query], frequency: Mapping[str, int]) -> dict[str, BoolArray]:
    """Head, torso and tail by training-log frequency (at least 20, at least 3, below), and by what the context holds."""
    count = np.array([frequency.get(normalise(q.text), 0) for q in queries])
    follows = np.array([bool(q.context.queries) for q in queries])
    watched = np.array([bool(q.context.titles) for q in queries])
    return {
        "head": count >= 20,
        "torso": (count >= 3) & (count < 20),
        "tail": count < 3,
        "after a query": follows,
        "after a video only": watched & ~follows,
        "no context": ~watched & ~follows,
    }


def query_frequency(texts: Sequence[str]) -> Counter[str]:
    """Occurrences of each normalised query."""
    return Counter(map(normalise, texts))


def _new(queries: Sequence[Query], frequency: Mapping[str, int], before: Mapping[str, int]) -> BoolArray:
    """Searches with a word that earlier weeks did not hold and this one holds in three searches or more: no mere slip."""
    old = {w for text in before for w in words(text)}
    counts = Counter[str]()
    for text, n in frequency.items():
        for word in set(words(text)) - old:
            counts[word] += n
    fresh = {w for w, n in counts.items() if n >= 3}
    return np.array([not fresh.isdisjoint(words(q.text)) for q in queries], np.bool_)
