"""All intents that a search of a world can have, and how likely each is before anything is known of the search."""

from collections import defaultdict
from functools import cached_property

import numpy as np
import numpy.typing as npt

from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.intents import Intents
from corewrite.simulation.vocabulary import ASPECTS, CATEGORIES
from corewrite.simulation.world import NONE, World

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class IntentSpace:
    """The possible intents of a world in one order; vectors over intents are of length `len(space)`.

    An intent is an entity in an aspect of its category, an entity whatever the aspect, or an aspect within a category.

    Attributes:
        world: Whose intents.
        intents: All of them.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        aspects = [np.flatnonzero(world.aspect_weight[c]) for c in range(len(CATEGORIES))]
        listed = [
            (e, int(a), int(c)) for e, c in enumerate(world.category) for a in (*aspects[c], NONE)
        ] + [(NONE, int(a), c) for c in range(len(CATEGORIES)) for a in aspects[c]]  # fmt: skip
        table = np.array(listed, np.int64)
        self.intents = Intents(table[:, 0], table[:, 1], table[:, 2])
        self._place = {key: i for i, key in enumerate(listed)}

    def __len__(self) -> int:
        return len(self.intents)

    def place(self, entity: int, aspect: int, category: int) -> int:
        """Place of an intent in the order.

        Raises:
            KeyError: no search has this intent.
        """
        return self._place[entity, aspect, category]

    @cached_property
    def of_entity(self) -> dict[int, IntArray]:
        """Places of the intents of each entity (`NONE`: the exploratory ones)."""
        return _places(self.intents.entity)

    @cached_property
    def of_aspect(self) -> dict[int, IntArray]:
        """Places of the intents of each aspect (`NONE`: an entity whatever the aspect)."""
        return _places(self.intents.aspect)

    @cached_property
    def aspect_given_category(self) -> FloatArray:
        """Interest in an intent's aspect within its category, [intents]; 0 without an aspect."""
        a, c = self.intents.aspect, self.intents.category
        return np.where(a == NONE, 0.0, self.world.aspect_weight[c, np.maximum(a, 0)])

    def fresh(self, interest: FloatArray, traffic: TrafficConfig, entity_only: float) -> FloatArray:
        """Probability of each intent where nothing went before, [intents].

        Args:
            interest: Of each entity, sums to 1.
            traffic: Habits.
            entity_only: Share that want an entity whatever the aspect.
        """
        e, a, c = self.intents.entity, self.intents.aspect, self.intents.category
        of_category = np.bincount(self.world.category, interest, len(CATEGORIES))
        whole = interest[np.maximum(e, 0)]
        kinds = [traffic.exploratory * of_category[c] * self.aspect_given_category, entity_only * whole]
        both = (1 - traffic.exploratory - entity_only) * whole * self.aspect_given_category
        return np.asarray(np.select([e == NONE, a == NONE], kinds, both))

    def next(
        self, before: FloatArray, interest: FloatArray, traffic: TrafficConfig
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Probability of the next intent of a session (see `next_intent`), by what it keeps of the one before.

        Args:
            before: Probability or weight of each intent before, [intents].
            interest: Of each entity, sums to 1.
            traffic: Habits.

        Returns:
            The parts that keep the entity, that keep the aspect, and the rest; each [intents], together of the sum of `before`.
        """
        e, a = self.intents.entity, self.intents.aspect
        n, named = len(self.world.names), e != NONE
        same_entity = traffic.same_entity * named
        # The same number decides both: who has no entity to stay with goes on to the aspect up to the sum of the two.
        same_aspect = np.where(named, traffic.same_aspect, traffic.same_entity + traffic.same_aspect) * (a != NONE)
        kept = np.bincount(e[named], (before * same_entity)[named], n)
        entity_kept = np.where(named, kept[np.maximum(e, 0)] * self.aspect_given_category, 0.0)
        groups = self._by_group(before * same_aspect)
        of_category = np.bincount(self.world.category, interest, len(CATEGORIES))
        share = np.divide(interest, of_category[self.world.category], out=np.zeros(n), where=interest > 0)
        real = named & (a != NONE)
        aspect_kept = np.where(real, groups * share[np.maximum(e, 0)], 0.0)
        rest = float((before * (1 - same_entity - same_aspect)).sum())
        anew = rest * np.where(real, interest[np.maximum(e, 0)] * self.aspect_given_category, 0.0)
        # A share of them all loses its entity, and with it what was kept of it.
        lost = np.where(named, 0.0, traffic.exploratory * self._by_group(entity_kept + aspect_kept + anew))
        staying = 1 - traffic.exploratory
        return staying * entity_kept, staying * aspect_kept, staying * anew + lost

    def _by_group(self, values: FloatArray) -> FloatArray:
        """Sum of `values` over the intents with the same category and aspect, for each intent, [intents]."""
        return np.asarray(np.bincount(self._group, values, len(CATEGORIES) * len(ASPECTS))[self._group])

    @cached_property
    def _group(self) -> IntArray:
        """Category and aspect as one number; an intent without an aspect, which no sum here holds, goes with the first."""
        return np.asarray(self.intents.category * len(ASPECTS) + np.maximum(self.intents.aspect, 0))


def _places(values: IntArray) -> dict[int, IntArray]:
    places: dict[int, list[int]] = defaultdict(list)
    for i, value in enumerate(values):
        places[int(value)].append(i)
    return {value: np.array(found, np.int64) for value, found in places.items()}
