"""Intents that searches may have with their probabilities, and what rankings are worth under them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.simulation.intents import Intents, ndcg10
from corewrite.simulation.vocabulary import ASPECTS, CATEGORIES
from corewrite.simulation.world import NONE, World

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PossibleIntents:
    """The intents that a search may have.

    Attributes:
        intents: Most probable first.
        probability: Of each, float64, sums to 1.
    """

    intents: Intents
    probability: FloatArray

    def __len__(self) -> int:
        return len(self.probability)

    def head(self, share: float, most: int) -> "PossibleIntents":
        """The fewest most probable intents that hold `share` of the probability, `most` at most; scaled to sum to 1."""
        n = min(most, len(self), 1 + int(np.searchsorted(np.cumsum(self.probability), share)))
        kept = self.probability[:n]
        return PossibleIntents(self.intents.take(np.arange(n)), kept / kept.sum())

    def worded(self, world: World) -> list[tuple[str, str]]:
        """Subject (the entity's name, or the category's) and canonical word of the aspect ("" for any) of each intent."""
        return [
            (world.names[e] if e != NONE else CATEGORIES[c][0], ASPECTS[a][0] if a != NONE else "")
            for e, a, c in zip(self.intents.entity, self.intents.aspect, self.intents.category, strict=True)
        ]

    def other_words(self, world: World) -> list[tuple[str, str]]:
        """What users type instead of the canonical word of the aspect ("" for any), and the category, of each intent."""
        return [
            (" ".join(ASPECTS[a][1]) if a != NONE else "", CATEGORIES[c][0])
            for a, c in zip(self.intents.aspect, self.intents.category, strict=True)
        ]


def expected_ndcg10(world: World, possible: Sequence[PossibleIntents], rows: IntArray) -> FloatArray:
    """nDCG@10 that ranked lists are expected to have, float64 [searches].

    Args:
        world: The world of the videos.
        possible: What each search may be after.
        rows: Ranked catalogue rows [searches, >= 10], -1 pads.
    """
    search = np.repeat(np.arange(len(possible)), [len(p) for p in possible])
    parts = [p.intents for p in possible]
    every = Intents(
        *(np.concatenate([getattr(p, name) for p in parts] or [[]]).astype(int) for name in ("entity", "aspect", "category"))
    )
    probability = np.concatenate([p.probability for p in possible]) if possible else np.empty(0)
    worth = probability * ndcg10(world, every, rows[search])
    return np.asarray(np.bincount(search, worth, len(possible)), np.float64)
