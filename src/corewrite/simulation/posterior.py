"""What a search is after, as far as its query and its context say: the posterior over intents by enumeration.

The platform's own program (`type_query`, `open_sessions`, `examine`, `next_intent`) is run backwards over a session. Hidden
are, for each search of the session, the intent, what the context told of it, which name and word came to mind, and where one
intent ended and the next began; further which titles of the context were watched before the session and which were clicked
after which query. All of these are summed over (a forward pass, Rabiner 1989). A search's own intent is never read: what
comes in is the query with its context and the week.

Approximations beside those of `wording` and `watched`, each small since it touches few searches:

- Context keeps three queries and three titles. Of titles that it has lost nothing is assumed. Where it holds three queries
  the session may have begun before them (as every other search is followed by another, with even odds at each step): the
  first query kept is then taken for a first or a later attempt with even odds, and titles before its clicks for unrelated.
- What a context had told of an earlier intent of the session goes by the queries and titles that are still there, and with a
  fixed chance for those lost.
- The limit of attempts is left out.
- A title that neither the lists nor the watching before explain (lists of another engine) counts as a rare accident.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain import Query
from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.intent_space import IntentSpace
from corewrite.simulation.possible import PossibleIntents
from corewrite.simulation.vocabulary import ASPECTS
from corewrite.simulation.watched import CLICKED, PASSED, UNKNOWN, ClicksOnLists, WatchedBefore
from corewrite.simulation.wording import TOLD, Wordings
from corewrite.simulation.world import NONE, World

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_KEPT = 3
"""Queries and titles that a context keeps."""
_BEGUN_EARLIER = 1.0
"""Odds that a session with as many queries as a context keeps began before them."""
_SAID_BY_LOST = 0.3
"""Chance that a title which the context has lost had named the entity, or the aspect, that an intent kept."""
_ACCIDENT = 1e-6
"""Chance of a title that nothing explains."""


@dataclass(frozen=True)
class _Split:
    """Which titles of a context were watched before its first query, and which were clicked after each.

    Attributes:
        before: Those watched before.
        lost: Whether there may have been titles before all of these.
        known: What is known of each displayed document, by earlier query, [documents] each.
        seen: How many titles there were before each query, the last one included.
        accidents: Titles that the lists do not explain.
    """

    before: tuple[str, ...]
    lost: bool
    known: tuple[IntArray, ...]
    seen: tuple[int, ...]
    accidents: int


class IntentPosterior:
    """Posterior over intents in one week of a world.

    Args:
        world: The public world: names, popularity, aspects, videos.
        traffic: Habits of its users.
        week: Number of the week.
        lists: What the engine displays for queries, catalogue rows [queries, 10], -1 pads: context titles that were clicked
            after an earlier query are looked for there.
    """

    def __init__(
        self, world: World, traffic: TrafficConfig, week: int, lists: Callable[[Sequence[str]], IntArray]
    ) -> None:  # fmt: skip
        self.space = IntentSpace(world)
        self._traffic, self._lists = traffic, lists
        self._interest = world.interest(week)
        self._wordings = Wordings(self.space, traffic, world.fashion(week))
        self._watched = WatchedBefore(self.space, traffic)
        self._clicks = ClicksOnLists(self.space, traffic)
        self._fresh = self.space.fresh(self._interest, traffic, traffic.entity_only)
        self._titles = world.catalogue.titles
        self._named = [_said_by(f" {name} ", self.space.of_entity[e]) for e, name in enumerate(world.names)]
        self._aspect_said = [
            _said_by(f" {word} ", self.space.of_aspect.get(a, np.empty(0, np.int64))) for a, (word, _) in enumerate(ASPECTS)
        ]
        self._shown: dict[str, IntArray] = {}
        self._ends: dict[tuple[str, bytes], tuple[FloatArray, FloatArray]] = {}
        self._says: dict[str, tuple[IntArray, IntArray]] = {}

    def __call__(self, queries: Sequence[Query]) -> list[PossibleIntents]:
        """Posterior of each search; equal searches are computed once.

        Raises:
            ValueError: a query that no user of the platform types.
        """
        asked = {text for q in queries for text in q.context.queries[-_KEPT:]} - self._shown.keys()
        missing = sorted(asked)
        if missing:
            self._shown.update(zip(missing, np.asarray(self._lists(missing)), strict=True))
        found: dict[tuple[object, ...], PossibleIntents] = {}
        answers = []
        for query in queries:
            key = (query.text, query.context.queries, query.context.titles)
            if key not in found:
                found[key] = self._posterior(query)
            answers.append(found[key])
        return answers

    def _posterior(self, query: Query) -> PossibleIntents:
        texts = (*query.context.queries[-_KEPT:], query.text)
        titles = query.context.titles[-_KEPT:]
        last = self._wordings[query.text]
        if not len(last.places):
            raise ValueError(f"no user of the platform types {query.text!r}: the posterior is of simulated searches only")
        mass = np.zeros(len(last.places))
        for split in self._splits(texts[:-1], titles):
            mass += _ACCIDENT**split.accidents * self._session(texts, titles, split)
        if not mass.sum() > 0:
            raise ValueError(f"the platform cannot make the query {query.text!r} in its context {query.context}")
        order = np.argsort(-mass, kind="stable")
        order = order[mass[order] > 0]
        return PossibleIntents(self.space.intents.take(last.places[order]), mass[order] / mass.sum())

    def _session(self, texts: tuple[str, ...], titles: tuple[str, ...], split: _Split) -> FloatArray:
        """Probability of texts and titles together with each intent of the last text, [its places]."""
        last = len(texts) - 1
        words = [self._wordings[text] for text in texts]
        ends = [self._end(text, known) for text, known in zip(texts, split.known, strict=False)]
        before = np.zeros((last + 1, len(self.space)))  # weight of each intent at the end of the chain before a text
        found = np.zeros(len(words[-1].places))
        for begin in range(last + 1):
            if begin == 0:
                start, kind = self._begin(split, len(texts))
            else:
                said = (*texts[:begin][-_KEPT:], *titles[: split.seen[begin]][-_KEPT:])
                lost = split.lost and split.seen[begin] < _KEPT
                start, kind = self._next(before[begin], said, _SAID_BY_LOST if lost else _ACCIDENT), 0.0
                if not start.any():
                    continue
            here = words[begin]
            weight = start[:, None, None, here.places] * self._wordings.habits[:, :, here.places]
            weight = weight * (here.first if kind == 0 else (1 - kind) * here.first + kind * here.later)
            places = here.places
            for j in range(begin, last):
                again, other = (end[np.searchsorted(words[j].places, places)] for end in ends[j])
                before[j + 1, places] += weight.sum((0, 1, 2)) * other
                both = np.intersect1d(places, words[j + 1].places, assume_unique=True)
                weight = (weight * again)[..., np.searchsorted(places, both)]
                places = both
                if not len(places):
                    break
                following, previous = words[j + 1].at(places), words[j].at(places)
                weight = weight * following.after(previous, texts[j] == texts[j + 1], self._wordings.mended)
            else:
                found[np.searchsorted(words[-1].places, places)] += weight.sum((0, 1, 2))
        return found

    def _begin(self, split: _Split, n: int) -> tuple[FloatArray, float]:
        """Weights of what the first text may be after, [told, intents], and the chance that it is a later attempt."""
        start = self._fresh * self._watched(split.before, more=split.lost)
        if n <= _KEPT:
            return start, 0.0
        told = self._watched((), more=True)
        for title in split.before:
            told = told * self._watched.unrelated(title)
        earlier = _BEGUN_EARLIER * self._fresh * told
        total = start.sum() + earlier.sum()
        return start + earlier, 0.5 * float(earlier.sum() / total) if total > 0 else 0.0

    def _next(self, before: FloatArray, said: Sequence[str], doubt: float) -> FloatArray:
        """Weights of the next intent and what `said`, or with probability `doubt` another text, tells; [told, intents]."""
        entity_kept, aspect_kept, anew = self.space.next(before, self._interest, self._traffic)
        told = np.zeros((len(TOLD), len(self.space)))
        named, aspect_said = (np.zeros(len(self.space), np.bool_) for _ in range(2))
        for text in said:
            for mask, places in zip((named, aspect_said), self._saying(text), strict=True):
                mask[places] = True
        real = self.space.intents.entity != NONE
        told[1] = entity_kept * real * np.where(named, 1.0, doubt)
        told[2] = aspect_kept * real * np.where(aspect_said, 1.0, doubt)
        told[0] = entity_kept + aspect_kept + anew - told[1] - told[2]
        return told

    def _saying(self, text: str) -> tuple[IntArray, IntArray]:
        """Intents whose entity a text names in full, and whose aspect it calls by the plain word."""
        if text not in self._says:
            padded = f" {text} "
            self._says[text] = tuple(  # type: ignore[assignment]
                np.concatenate([np.empty(0, np.int64), *(places for word, places in parts if word in padded)])
                for parts in (self._named, self._aspect_said)
            )
        return self._says[text]

    def _end(self, text: str, known: IntArray) -> tuple[FloatArray, FloatArray]:
        key = (text, known.tobytes())
        if key not in self._ends:
            self._ends[key] = self._clicks(self._shown[text], known, self._wordings[text].places)
        return self._ends[key]

    def _splits(self, earlier: tuple[str, ...], titles: tuple[str, ...]) -> Iterator[_Split]:
        """All ways in which the titles may have come about; those with the fewest accidents only."""
        lost = len(titles) == _KEPT
        found = []
        for ends in _cuts(len(titles), len(earlier)):
            begins = (0, *ends)
            parts = [titles[a:b] for a, b in zip(begins, (*ends, len(titles)), strict=True)]
            clicks, accidents = [], 0
            first = next((i for i, part in enumerate(parts) if part), len(parts))
            for i, (text, part) in enumerate(zip(earlier, parts[1:], strict=True), start=1):
                known, missed = self._known(self._shown[text], part)
                accidents += missed
                if lost and i < first:
                    known = np.full_like(known, UNKNOWN)
                elif lost and i == first:
                    known[: int(np.argmax(known == CLICKED))] = UNKNOWN
                clicks.append(known)
            # The titles seen before the first query, then before each later one.
            found.append(_Split(parts[0], lost, tuple(clicks), (*ends, len(titles)), accidents))
        fewest = min(split.accidents for split in found)
        yield from (split for split in found if split.accidents == fewest)

    def _known(self, rows: IntArray, clicked: Sequence[str]) -> tuple[IntArray, int]:
        """What titles clicked say of a list, and how many of them it does not hold in this order."""
        known, place, missed = np.full(len(rows), PASSED, np.int64), 0, 0
        for title in clicked:
            rank = next((k for k in range(place, len(rows)) if rows[k] >= 0 and self._titles[rows[k]] == title), None)
            if rank is None:
                missed += 1
            else:
                known[rank], place = CLICKED, rank + 1
        return known, missed


def _cuts(titles: int, queries: int) -> Iterator[tuple[int, ...]]:
    """All ascending places in 0..titles at which the clicks of each query begin."""
    if queries == 0:
        yield ()
        return
    for rest in _cuts(titles, queries - 1):
        for place in range(rest[-1] if rest else 0, titles + 1):
            yield (*rest, place)


def _said_by(word: str, places: IntArray) -> tuple[str, IntArray]:
    return word, places
