"""Sessions of a simulated week: who searches when and for what, what was watched before, and the next intent."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from corewrite.domain import keyed_uniform
from corewrite.simulation import purposes
from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.queries import Told
from corewrite.simulation.vocabulary import ASPECTS
from corewrite.simulation.world import NONE, World

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_WEEK: Final = 7 * 24 * 3600.0
WATCHED: Final = 2.4
"""Titles watched before: 1 plus the whole part of a uniform number times this."""
NEAR: Final = 0.4
"""Unrelated titles that are of the intent's category, which misleads."""
RELATED_LAST: Final = 0.7
"""Related titles that were watched last; the others were watched first."""
STRIDE, STRIDES = 37, 200
"""How a title of a category is looked for from a random place: the step, and steps at most."""
_START: Final = 1_772_409_600.0  # 2026-03-02T00:00:00Z, a Monday


@dataclass
class Session:
    """Mutable state of one session while it is simulated.

    Attributes:
        user, number: The user, and which of the user's sessions of the week it is.
        user_id, arm: Name and arm of the user.
        clock: Time, seconds since the epoch.
        titles, earlier: Titles watched and queries typed so far, oldest first.
        entity, aspect, category: Truth: the intent, as places in the world's tables; `NONE` where it names none.
        told: Truth: which part of the intent the context names.
        habit: Two draws in [0, 1) that an intent's queries share.
        attempt: 0 for the first query of the intent.
        step: Searches so far.
    """

    user: int
    number: int
    user_id: str
    arm: str
    clock: float
    titles: list[str]
    earlier: list[str]
    entity: int
    aspect: int
    category: int
    told: Told
    habit: tuple[float, float]
    attempt: int = 0
    step: int = 0


def number_within_user(users: npt.NDArray[np.uint64]) -> IntArray:
    """0, 1, 2, ... for the first, second, third element of each user."""
    order = np.argsort(users, kind="stable")
    ordered = users[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(users)), 0))
    number = np.empty(len(users), np.int64)
    number[order] = np.arange(len(users)) - start
    return number


def open_sessions(
    world: World, traffic: TrafficConfig, week: int, users: IntArray, number: IntArray, assign_arm: Callable[[str], str]
) -> list[Session]:
    """The sessions of a week with their first intents.

    Args:
        world: The platform.
        traffic: Habits of its users.
        week: Number of the week.
        users: Whose each session is, [sessions].
        number: Which of the user's sessions it is, [sessions].
        assign_arm: Arm of a user id.
    """
    seed = world.config.seed
    u = keyed_uniform(seed, week, users[:, None], number[:, None], np.arange(17)[None, :], purposes.SESSION)
    interest = np.cumsum(world.interest(week))
    aspects = np.cumsum(world.aspect_weight, axis=1)
    named = videos_that_say(world)
    popular = np.cumsum(world.catalogue.prior**3)
    popular /= popular[-1]
    opened = []
    for i in range(len(users)):
        entity = min(int(np.searchsorted(interest, u[i, 0])), len(world.names) - 1)
        category = int(world.category[entity])
        aspect = min(int(np.searchsorted(aspects[category], u[i, 1])), len(ASPECTS) - 1)
        if u[i, 2] < traffic.exploratory:
            entity = NONE
        elif u[i, 2] < traffic.exploratory + traffic.entity_only:
            aspect = NONE
        # What was watched before: a video of the entity, others, or nothing.
        titles: list[str] = []
        told = Told.NOTHING
        if u[i, 3] >= traffic.empty_context:
            others = 1 + int(u[i, 4] * WATCHED)
            related = (u[i, 3] - traffic.empty_context) < traffic.related_context
            for k in range(others - related):
                near = u[i, 5 + k] < NEAR  # a video of the same category misleads
                titles.append(_title(world, popular, float(u[i, 8 + k]), category if near else NONE))
            wish = Told.ENTITY if u[i, 14] < traffic.told_entity else Told.ASPECT
            part = entity if wish is Told.ENTITY else aspect
            rows = named[wish, part] if related and part != NONE and entity != NONE else np.empty(0, np.int64)
            if len(rows):
                title = world.catalogue.titles[rows[int(u[i, 11] * len(rows))]]
                titles.insert(len(titles) if u[i, 12] < RELATED_LAST else 0, title)
                told = wish
        user_id = f"u{users[i]:07d}"
        clock = _START + week * _WEEK + float(u[i, 13]) * (_WEEK - 4 * 3600)
        opened.append(
            Session(
                int(users[i]),
                int(number[i]),
                user_id,
                assign_arm(user_id),
                clock,
                titles,
                [],
                entity,
                aspect,
                category,
                told,
                (float(u[i, 15]), float(u[i, 16])),
            )
        )
    return opened


def videos_that_say(world: World) -> dict[tuple[Told, int], IntArray]:
    """Rows of the videos whose title holds an entity's name, or an aspect's canonical word."""
    rows: dict[tuple[Told, int], list[int]] = {(Told.ENTITY, e): [] for e in range(len(world.names))}
    rows |= {(Told.ASPECT, a): [] for a in range(len(ASPECTS))}
    for row, (entity, aspect) in enumerate(zip(world.video_entity, world.video_aspect, strict=True)):
        title = f" {world.catalogue.titles[row]} "
        if f" {world.names[entity]} " in title:
            rows[Told.ENTITY, int(entity)].append(row)
        if f" {ASPECTS[aspect][0]} " in title:
            rows[Told.ASPECT, int(aspect)].append(row)
    return {part: np.array(found, np.int64) for part, found in rows.items()}


def _title(world: World, popular: FloatArray, draw: float, category: int) -> str:
    row = min(int(np.searchsorted(popular, draw)), len(popular) - 1)
    if category != NONE:  # walk on to the next video of the category
        for step in range(STRIDES):
            candidate = (row + step * STRIDE) % len(popular)
            if world.category[world.video_entity[candidate]] == category:
                row = candidate
                break
    return world.catalogue.titles[row]


def next_intent(world: World, traffic: TrafficConfig, week: int, s: Session, u: FloatArray) -> None:
    """Move the session on to its next intent."""
    s.attempt = 0
    s.habit = (float(u[8]), float(u[9]))
    s.clock += 30.0 + 400.0 * float(u[3]) ** 2
    same_entity = s.entity != NONE and u[4] < traffic.same_entity
    same_aspect = s.aspect != NONE and not same_entity and u[4] < traffic.same_entity + traffic.same_aspect
    if not same_entity:
        interest = world.interest(week)
        if same_aspect:  # another entity of which one would want to see the same
            interest = interest * (world.category == s.category)
        s.entity = min(int(np.searchsorted(np.cumsum(interest) / interest.sum(), u[5])), len(world.names) - 1)
        s.category = int(world.category[s.entity])
    if not same_aspect:
        weights = np.cumsum(world.aspect_weight[s.category])
        s.aspect = min(int(np.searchsorted(weights, u[6])), len(ASPECTS) - 1)
    if u[7] < traffic.exploratory:
        s.entity = NONE
    # The context gives a part of the intent where an earlier query or a watched title named it.
    said = [f" {text} " for text in (*s.earlier[-3:], *s.titles[-3:])]
    s.told = Told.NOTHING
    if s.entity != NONE and same_entity and any(f" {world.names[s.entity]} " in text for text in said):
        s.told = Told.ENTITY
    elif s.entity != NONE and same_aspect and any(f" {ASPECTS[s.aspect][0]} " in text for text in said):
        s.told = Told.ASPECT
