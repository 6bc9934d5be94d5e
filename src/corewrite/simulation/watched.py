"""What the titles of a search's context say of its intent: `open_sessions` and `examine` the other way round."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.examination import click_probability, content_probability
from corewrite.simulation.intent_space import IntentSpace
from corewrite.simulation.intents import grades
from corewrite.simulation.queries import Told
from corewrite.simulation.sessions import NEAR, RELATED_LAST, STRIDE, STRIDES, WATCHED, videos_that_say
from corewrite.simulation.vocabulary import CATEGORIES
from corewrite.simulation.wording import TOLD
from corewrite.simulation.world import NONE

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

CLICKED, PASSED, UNKNOWN = 1, 0, -1
"""What is known of a displayed result."""


class WatchedBefore:
    """Likelihood of the titles watched before a session's first search."""

    def __init__(self, space: IntentSpace, traffic: TrafficConfig) -> None:
        self._space, self._traffic = space, traffic
        titles = space.world.catalogue.titles
        self.rows: dict[str, list[int]] = defaultdict(list)
        for row, title in enumerate(titles):
            self.rows[title].append(row)
        self._saying = videos_that_say(space.world)
        # 1, 2, ... titles as long as the uniform number allows; the last count may be cut short by 1.
        counts = range(1, 1 + int(np.ceil(WATCHED)))
        self._counts = {n: (min(n, WATCHED) - (n - 1)) / WATCHED for n in counts}

    def __call__(self, titles: Sequence[str], *, more: bool) -> FloatArray:
        """Probability of the last titles, and of what they tell, by intent; [told, intents].

        Args:
            titles: The last ones watched, oldest first.
            more: Whether others may have been watched before these; False: these are all.
        """
        traffic, n = self._traffic, len(titles)
        any_unrelated = np.prod([self.unrelated(t) for t in titles], axis=0) * np.ones(len(self._space))
        empty = traffic.empty_context
        related = min(traffic.related_context, 1 - empty)

        def count(k: int) -> float:  # probability of k titles, or of k and more
            return sum(p for m, p in self._counts.items() if m == k or (more and m > k))

        found = np.zeros((len(TOLD), len(self._space)))
        found[0] = (1 - empty - related) * count(n) * any_unrelated + empty * (n == 0)
        for t, wish in ((1, traffic.told_entity), (2, 1 - traffic.told_entity)):
            possible = self._possible[t]
            # Without a title that says it, the related one is left out.
            found[0] += related * wish * ~possible * count(n + 1) * any_unrelated
            if n == 0:
                found[t] += related * wish * possible * more
                continue
            for m, share in self._counts.items():
                if m < n or (m > n and not more):
                    continue
                last = self.related(titles[-1])[t - 1] * self._others(titles[:-1])
                first = self.related(titles[0])[t - 1] * self._others(titles[1:]) if m == n else any_unrelated
                found[t] += related * wish * possible * share * (RELATED_LAST * last + (1 - RELATED_LAST) * first)
        return found

    def unrelated(self, title: str) -> FloatArray:
        """Probability of a title that does not follow from the intent, by intent, [intents]; 0 for one not in the catalogue."""
        rows = self.rows.get(title, [])
        by_category = NEAR * self._near[:, rows].sum(1) + (1 - NEAR) * self._popular[rows].sum()
        return np.asarray(by_category[self._space.intents.category])

    def related(self, title: str) -> FloatArray:
        """Probability of a title that says the entity, and the aspect, of the intent; [2, intents]."""
        found = np.zeros((2, len(self._space)))
        for row in self.rows.get(title, ()):
            for k, (of, parts, says, counts) in enumerate(self._said):
                key = int(parts[row])
                if says[row]:
                    found[k, of[key]] += 1 / counts[key]
        found[:, self._space.intents.entity == NONE] = 0.0
        return found

    @cached_property
    def _said(self) -> list[tuple[dict[int, IntArray], IntArray, npt.NDArray[np.bool_], IntArray]]:
        """Of entities and aspects: their intents, that of each row, whether the row's title says it, titles that say each."""
        world, space = self._space.world, self._space
        found = []
        for told, of, parts in (
            (Told.ENTITY, space.of_entity, world.video_entity),
            (Told.ASPECT, space.of_aspect, world.video_aspect),
        ):
            rows = {part: saying for (what, part), saying in self._saying.items() if what is told}
            says = np.zeros(len(parts), np.bool_)
            says[np.concatenate(list(rows.values()))] = True
            found.append((of, parts, says, np.array([len(rows[part]) for part in range(len(rows))])))
        return found

    def _others(self, titles: Sequence[str]) -> FloatArray:
        return np.asarray(np.prod([self.unrelated(t) for t in titles], axis=0) * np.ones(len(self._space)))

    @cached_property
    def _possible(self) -> dict[int, npt.NDArray[np.bool_]]:
        """By part told (1 the entity, 2 the aspect): whether some title says it, [intents]."""
        e, a = self._space.intents.entity, self._space.intents.aspect
        return {
            1: np.array([x != NONE and len(self._saying[Told.ENTITY, int(x)]) > 0 for x in e]),
            2: np.array(
                [x != NONE and y != NONE and len(self._saying[Told.ASPECT, int(y)]) > 0 for x, y in zip(e, a, strict=True)]
            ),
        }

    @cached_property
    def _popular(self) -> FloatArray:
        weight = self._space.world.catalogue.prior**3
        return np.asarray(weight / weight.sum())

    @cached_property
    def _near(self) -> FloatArray:
        """Probability of each row where one of a category is looked for from a random one, [categories, rows]."""
        world, n = self._space.world, len(self._popular)
        category = world.category[world.video_entity]
        found = np.zeros((len(CATEGORIES), n))
        for c in range(len(CATEGORIES)):
            start = np.arange(n)
            for step in range(STRIDES):
                place = (start + step * STRIDE) % n
                there = category[place] == c
                np.add.at(found[c], place[there], self._popular[start[there]])
                start = start[~there]
            found[c, start] += self._popular[start]
        return found


class ClicksOnLists:
    """Likelihood of clicks on the lists of earlier searches, and of how these searches ended.

    Users' patience is taken at its mean.
    """

    def __init__(self, space: IntentSpace, traffic: TrafficConfig) -> None:
        self._space, self._traffic = space, traffic

    def __call__(self, rows: IntArray, known: IntArray, places: IntArray) -> tuple[FloatArray, FloatArray]:
        """Probability of what is known of the clicks together with what follows, for the intents at `places`.

        Args:
            rows: The list displayed, [documents], -1 pads.
            known: `CLICKED`, `PASSED` or `UNKNOWN` of each document, [documents].
            places: Intents, [n].

        Returns:
            Followed by another attempt at the intent, and by a search for another one; float64 [n] each.
        """
        world, traffic, n = self._space.world, self._traffic, len(places)
        wide = np.broadcast_to(rows, (n, len(rows)))
        grade = grades(world, self._space.intents.take(places), wide)
        click, content = click_probability(world, grade, wide), content_probability(world, grade, wide)
        looking = np.zeros((2, 2, n))  # felt, scent
        looking[0, 0] = 1.0
        ended = np.zeros_like(looking)
        last = max(np.flatnonzero(known == CLICKED), default=-1)
        go_on = float(np.clip(traffic.scan_on, 0.05, 0.97))
        for k in range(len(rows)):
            scent = grade[:, k] > 0
            looking = np.stack([np.where(scent, 0.0, looking[:, 0]), looking[:, 1] + np.where(scent, looking[:, 0], 0.0)], 1)
            stays, stops = np.zeros_like(looking), np.zeros_like(looking)
            if known[k] != CLICKED:
                passed = looking * (1 - click[:, k])
                stays, stops = stays + passed * go_on, stops + passed * (1 - go_on)
            if known[k] != PASSED:
                clicked = looking * click[:, k]
                bored, pleased = clicked * (1 - content[:, k]), clicked.sum(0) * content[:, k]
                stays, stops = stays + bored * go_on, stops + bored * (1 - go_on)
                stays[1] += pleased * (1 - traffic.stop_when_satisfied)
                stops[1] += pleased * traffic.stop_when_satisfied
            if k >= last:
                ended += stops
            looking = stays
        ended += looking
        change = np.array([traffic.change_query_blind, traffic.change_query])[:, None]
        again = (ended[0] * change).sum(0)
        other = traffic.next_search * (ended[1].sum(0) + (ended[0] * (1 - change)).sum(0))
        return np.asarray(again), np.asarray(other)
