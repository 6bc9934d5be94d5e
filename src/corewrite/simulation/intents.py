"""Hidden intents and the graded truth. Imported by the simulation and by measuring code only, which a test enforces."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain import ndcg
from corewrite.simulation.vocabulary import ASPECTS, CATEGORIES
from corewrite.simulation.world import NONE, World

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Intents:
    """What searches are really after, one element per search.

    Attributes:
        entity: Entity wanted, NONE for an exploratory search.
        aspect: Aspect wanted, NONE where any will do.
        category: Category wanted.
    """

    entity: IntArray
    aspect: IntArray
    category: IntArray

    def __len__(self) -> int:
        return len(self.entity)

    def take(self, index: npt.NDArray[np.generic]) -> "Intents":
        """The intents at `index`."""
        return Intents(self.entity[index], self.aspect[index], self.category[index])


def grades(world: World, intents: Intents, rows: IntArray) -> IntArray:
    """Graded relevance 0-3 of catalogue `rows` [searches, documents] (-1 pads, grade 0), int64.

    3: all that is wanted (the entity in the aspect wanted, or any where one is left open), well made. 2: the same, less well
    made. 1: the entity in another aspect, or as a guest in the aspect wanted; the aspect wanted in another category.
    """
    e, a, c = intents.entity[:, None], intents.aspect[:, None], intents.category[:, None]
    safe = np.maximum(rows, 0)
    entity = world.video_entity[safe] == e
    guest = (world.video_second[safe] == e) & (e != NONE)
    aspect = (world.video_aspect[safe] == a) | (a == NONE)
    right = np.where(world.video_quality[safe] >= 0.5, 3, 2)
    of_entity = np.where(entity, np.where(aspect, right, 1), np.where(guest & aspect, 1, 0))
    explored = np.where(aspect, np.where(world.category[world.video_entity[safe]] == c, right, 1), 0)
    found = np.where(e == NONE, explored, of_entity)
    return np.where(rows < 0, 0, found).astype(np.int64)


def ndcg10(world: World, intents: Intents, rows: IntArray) -> FloatArray:
    """nDCG@10 with linear gains against the best ten videos of the whole catalogue (Järvelin & Kekäläinen 2002).

    Args:
        world: The world of the videos.
        intents: What each search wanted.
        rows: Ranked catalogue rows [searches, >= 10], -1 pads.

    Returns:
        One value in [0, 1] per search; 0 where the catalogue has nothing relevant.
    """
    every = np.arange(len(world.catalogue))[None, :]
    best: dict[tuple[int, int, int], float] = {}
    ideal = np.empty(len(intents))
    for i in range(len(intents)):
        key = (int(intents.entity[i]), int(intents.aspect[i]), int(intents.category[i]))
        if key not in best:
            found = np.bincount(grades(world, intents.take(np.array([i])), every)[0], minlength=4)
            top = np.repeat([3, 2, 1, 0], found[::-1])[:10]
            best[key] = float(ndcg.dcg10(top))
        ideal[i] = best[key]
    return ndcg.ndcg10(grades(world, intents, rows[:, :10]), ideal)


def oracle_rewrites(world: World, intents: Intents) -> list[str]:
    """The rewrite a mind reader would give: the entity's name and the aspect's canonical word."""
    return [
        " ".join(filter(None, (_subject(world, int(e), int(c)), ASPECTS[a][0] if a != NONE else "")))
        for e, a, c in zip(intents.entity, intents.aspect, intents.category, strict=True)
    ]


def intent_named(world: World, intents: Intents, texts: list[str]) -> npt.NDArray[np.bool_]:
    """Whether each text names every part of the intent: the entity by name or alias, the aspect by any of its words."""
    named = np.zeros(len(texts), np.bool_)
    for i, text in enumerate(texts):
        padded = f" {text} "
        e, a = int(intents.entity[i]), int(intents.aspect[i])
        entity = e == NONE or any(f" {name} " in padded for name in (world.names[e], world.aliases[e]))
        aspect = a == NONE or any(f" {word} " in padded for word in (ASPECTS[a][0], *ASPECTS[a][1]))
        named[i] = entity and aspect
    return named


def _subject(world: World, entity: int, category: int) -> str:
    return world.names[entity] if entity != NONE else CATEGORIES[category][0]
