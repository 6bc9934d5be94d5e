"""Typing of queries: how a user with an intent words it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.vocabulary import ASPECTS, CATEGORIES, PADDING, misspell
from corewrite.simulation.world import NONE, World

FloatArray = npt.NDArray[np.float64]
DRAWS = 8
"""Uniform numbers that typing one query consumes."""
VAGUE = 0.25
"""Later attempts, not worded in full, that leave out the aspect."""
CATEGORY_SAID = 0.6
"""Exploratory queries that name the category beside the aspect."""
PLAIN_REPAIR = 0.4
"""Attempts in full that give up the user's own word for the aspect."""
PLAIN_SLANG_REPAIR = 0.6
"""Attempts in full that give up the word of the day."""
REVERSED = 0.15
"""Queries with the aspect before the entity."""
EXPLICIT_MISSPELL = 0.5
"""How much rarer slips are in attempts in full, as a factor."""


class Told(Enum):
    """Which part of the intent the context already names."""

    NOTHING = "nothing"
    ENTITY = "entity"
    ASPECT = "aspect"


@dataclass(frozen=True)
class Typed:
    """A query as typed, and what is (secretly) known about it.

    Attributes:
        text: The query.
        needs_context: It leaves out, or names ambiguously, a part of the intent that only the context gives.
        misspelt: A word of it is misspelt.
        ambiguous: It calls the entity by a name shared with another.
    """

    text: str
    needs_context: bool
    misspelt: bool
    ambiguous: bool


def type_query(
    world: World,
    traffic: TrafficConfig,
    entity: int,
    aspect: int,
    category: int,
    told: Told,
    attempt: int,
    u: FloatArray,
    habit: tuple[float, float],
    before: str = "",
    fashion: Mapping[int, tuple[str, float]] = MappingProxyType({}),
) -> Typed:
    """Type the intent once.

    Args:
        world: For the words.
        traffic: Habits.
        entity: Entity wanted or NONE.
        aspect: Aspect wanted or NONE.
        category: Category wanted.
        told: Which part of the intent the context names.
        attempt: 0 for the first query of an intent, then 1, 2, ...
        u: `DRAWS` uniform numbers in [0, 1).
        habit: Two more that stay the same for all attempts at an intent: which name and which aspect word come to mind.
        before: The previous attempt's text; nobody types the same again to change it.
        fashion: Word of the day of some aspects and how much in fashion it is (`World.fashion`).
    """
    explicit = attempt > 0 and u[0] < traffic.good_reformulation
    typed = _type(world, traffic, entity, aspect, category, told, attempt, u, habit, explicit, fashion)
    if typed.text == before:
        typed = _type(world, traffic, entity, aspect, category, told, attempt, u, (habit[0], 1.0), True, fashion)
    return typed


def _type(
    world: World,
    traffic: TrafficConfig,
    entity: int,
    aspect: int,
    category: int,
    told: Told,
    attempt: int,
    u: FloatArray,
    habit: tuple[float, float],
    explicit: bool,
    fashion: Mapping[int, tuple[str, float]],
) -> Typed:
    both = entity != NONE and aspect != NONE
    short = both and not explicit and u[1] < traffic.abbreviate
    drop_entity = short and told is Told.ENTITY
    drop_aspect = short and told is Told.ASPECT
    # A failed first query is sometimes followed by one that is vaguer: people cut words to "find more".
    vague = both and attempt > 0 and not explicit and u[1] > 1 - VAGUE
    drop_aspect = drop_aspect or (vague and told is not Told.ASPECT)
    use_alias = entity != NONE and not explicit and habit[0] < traffic.alias
    parts: list[str] = []
    ambiguous = False
    if entity == NONE:
        if u[2] < CATEGORY_SAID or aspect == NONE:
            parts.append(CATEGORIES[category][0])
    elif not drop_entity:
        parts.append(world.aliases[entity] if use_alias else world.names[entity])
        ambiguous = use_alias and world.rival[entity] != NONE
    if aspect != NONE and not drop_aspect:
        canonical, typed = ASPECTS[aspect]
        # Most repairs keep the user's own word for the aspect.
        plain = habit[1] >= traffic.synonym or (explicit and u[3] < PLAIN_REPAIR)
        word, height = fashion.get(aspect, ("", 0.0))
        # The upper end of the same number, so that a week without words of the day is typed as it was; 1 is the plain word.
        if 1.0 - traffic.slang * height <= habit[1] < 1.0 and not (explicit and u[3] < PLAIN_SLANG_REPAIR):
            parts.append(word)
        else:
            parts.append(canonical if plain else typed[int(habit[1] / traffic.synonym * len(typed))])
    if u[4] < REVERSED:
        parts.reverse()
    if not explicit and u[5] < traffic.padding:
        parts.append(PADDING[int(u[5] / traffic.padding * len(PADDING))])
    text = " ".join(parts)
    misspelt = False
    if u[6] < traffic.misspell * (EXPLICIT_MISSPELL if explicit else 1.0):
        words = text.split()
        longest = max(range(len(words)), key=lambda i: len(words[i]))
        words[longest], before = misspell(words[longest], float(u[7])), words[longest]
        misspelt = words[longest] != before
        text = " ".join(words)
    needs_context = drop_entity or (drop_aspect and told is Told.ASPECT) or (ambiguous and told is Told.ENTITY)
    return Typed(text, bool(needs_context), misspelt, bool(ambiguous))
