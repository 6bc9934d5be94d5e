"""A week of searches: users with hidden intents meet a ranking, session by session.

Sessions are simulated in rounds, all active sessions at once, so that the search engine is asked in batches. Every random
number is keyed by (seed, week, user, session, search, purpose): two arms that serve the same user see common random
numbers, and neither batch size nor order changes a draw.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from corewrite.domain import Context, Query, keyed_bits, keyed_uniform
from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.intents import Intents, grades
from corewrite.simulation.queries import DRAWS, Told, Typed, type_query
from corewrite.simulation.vocabulary import ASPECTS
from corewrite.simulation.world import NONE, World

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

T = TypeVar("T")
DISPLAYED = 10
_ROUNDS = 10
_WEEK = 7 * 24 * 3600.0
_START = 1_772_409_600.0  # 2026-03-02T00:00:00Z, a Monday
# Purposes of draws: the last key, so that no two decisions share a number.
_P_SESSION, _P_TYPE, _P_SCAN, _P_CLICK, _P_WATCH, _P_NEXT, _P_TITLES, _P_FELT = range(8)


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


@dataclass
class _Session:
    """Mutable state of one session while it is simulated."""

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


@dataclass(frozen=True, eq=False)
class _Search:
    """One search of the log in the making; the fields are those of `Week`, one search each."""

    query_id: str
    time: float
    user: int
    number: int
    step: int
    user_id: str
    arm: str
    query: Query
    rows: IntArray
    impacted: bool
    columns: dict[str, FloatArray]
    click: BoolArray
    watch: FloatArray
    delay: FloatArray
    intent: tuple[int, int, int]
    typed: Typed
    attempt: int
    told: Told
    examined: int
    felt: bool


def simulate_week(
    world: World,
    traffic: TrafficConfig,
    engine: Engine,
    *,
    week: int,
    sessions: int,
    assign_arm: Callable[[str], str] = lambda user_id: "default",
    population: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Week:
    """Simulate `sessions` sessions of one week.

    Args:
        world: The platform.
        traffic: Habits of its users.
        engine: Who answers.
        week: Week number, sets popularity and the clock.
        sessions: How many sessions.
        assign_arm: Arm of a user id.
        population: How many users exist, each week's are drawn from them; default 1.5 users a session.
        progress: Called with (rounds done, rounds in all).
    """
    seed = world.config.seed
    population = population or int(1.5 * sessions)
    per_user = max(1.0, traffic.sessions_per_user)
    users = keyed_bits(seed, week, np.arange(sessions), 101) % np.uint64(max(1, int(population / per_user)))
    number = _running_number(users)
    start = _open_sessions(world, traffic, week, users.astype(np.int64), number, assign_arm)
    log: list[_Search] = []
    active = start
    for round_number in range(_ROUNDS):
        progress(round_number, _ROUNDS)
        if not active:
            break
        active = _round(world, traffic, engine, week, active, log)
    progress(_ROUNDS, _ROUNDS)
    return _collect(week, log)


def _running_number(users: npt.NDArray[np.uint64]) -> IntArray:
    """0, 1, 2, ... for the first, second, third element of each user."""
    order = np.argsort(users, kind="stable")
    ordered = users[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(users)), 0))
    number = np.empty(len(users), np.int64)
    number[order] = np.arange(len(users)) - start
    return number


def _open_sessions(
    world: World, traffic: TrafficConfig, week: int, users: IntArray, number: IntArray, assign_arm: Callable[[str], str]
) -> list[_Session]:
    seed = world.config.seed
    u = keyed_uniform(seed, week, users[:, None], number[:, None], np.arange(17)[None, :], _P_SESSION)
    interest = np.cumsum(world.interest(week))
    aspects = np.cumsum(world.aspect_weight, axis=1)
    named = _videos_that_say(world)
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
            others = 1 + int(u[i, 4] * 2.4)
            related = (u[i, 3] - traffic.empty_context) < traffic.related_context
            for k in range(others - related):
                near = u[i, 5 + k] < 0.4  # a video of the same category misleads
                titles.append(_title(world, popular, float(u[i, 8 + k]), category if near else NONE))
            wish = Told.ENTITY if u[i, 14] < traffic.told_entity else Told.ASPECT
            part = entity if wish is Told.ENTITY else aspect
            rows = named[wish, part] if related and part != NONE and entity != NONE else np.empty(0, np.int64)
            if len(rows):
                title = world.catalogue.titles[rows[int(u[i, 11] * len(rows))]]
                titles.insert(len(titles) if u[i, 12] < 0.7 else 0, title)
                told = wish
        user_id = f"u{users[i]:07d}"
        clock = _START + week * _WEEK + float(u[i, 13]) * (_WEEK - 4 * 3600)
        opened.append(
            _Session(
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


def _videos_that_say(world: World) -> dict[tuple[Told, int], IntArray]:
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
        for step in range(200):
            candidate = (row + step * 37) % len(popular)
            if world.category[world.video_entity[candidate]] == category:
                row = candidate
                break
    return world.catalogue.titles[row]


def _round(
    world: World,
    traffic: TrafficConfig,
    engine: Engine,
    week: int,
    active: list[_Session],
    log: list[_Search],
) -> list[_Session]:
    """One search of every active session; returns the sessions that go on."""
    seed = world.config.seed
    user = np.array([s.user for s in active])
    number = np.array([s.number for s in active])
    step = np.array([s.step for s in active])

    def draw(purpose: int, width: int) -> FloatArray:
        wide = np.arange(width)[None, :]
        return keyed_uniform(seed, week, user[:, None], number[:, None], step[:, None], wide, purpose)

    u_type, fashion = draw(_P_TYPE, DRAWS), world.fashion(week)
    typed = [
        type_query(
            world,
            traffic,
            s.entity,
            s.aspect,
            s.category,
            s.told,
            s.attempt,
            u_type[i],
            s.habit,
            s.earlier[-1] if s.attempt else "",
            fashion,
        )
        for i, s in enumerate(active)
    ]
    queries = [
        Query(t.text, Context(tuple(s.earlier[-3:]), tuple(s.titles[-3:]), "en")) for t, s in zip(typed, active, strict=True)
    ]
    asked = [
        Asked(query, s.arm, s.user_id, _session_id(week, s.user_id, s.number), round(s.clock, 3))
        for query, s in zip(queries, active, strict=True)
    ]
    ranking = engine.rank(asked)
    intents = Intents(
        np.array([s.entity for s in active]), np.array([s.aspect for s in active]), np.array([s.category for s in active])
    )
    seen = _scan(world, traffic, intents, ranking.rows, keyed_uniform(seed, user, 77), draw)

    u_next = draw(_P_NEXT, 10)
    going_on: list[_Session] = []
    for i, s in enumerate(active):
        clicked = [int(r) for r in ranking.rows[i][seen.click[i]]]
        watched = float(seen.watch[i].sum())
        log.append(
            _Search(
                query_id=ranking.query_ids[i] if ranking.query_ids else f"w{week}-{s.user_id}-{s.number}-{s.step}",
                time=round(s.clock, 3),
                user=s.user,
                number=s.number,
                step=s.step,
                user_id=s.user_id,
                arm=s.arm,
                query=queries[i],
                rows=ranking.rows[i],
                impacted=bool(ranking.impacted[i]),
                columns={name: column[i] for name, column in ranking.columns.items()},
                click=seen.click[i],
                watch=seen.watch[i],
                delay=seen.delay[i],
                intent=(s.entity, s.aspect, s.category),
                typed=typed[i],
                attempt=s.attempt,
                told=s.told,
                examined=int(seen.examined[i]),
                felt=bool(seen.felt[i]),
            )
        )
        s.clock += 3.0 + 1.5 * float(seen.examined[i]) + watched + 4.0 + 40.0 * float(u_next[i, 0]) ** 2
        s.earlier.append(typed[i].text)
        s.titles.extend(world.catalogue.titles[r] for r in clicked)
        s.step += 1
        change = traffic.change_query if seen.scent[i] else traffic.change_query_blind
        if not seen.felt[i] and s.attempt + 1 < traffic.attempts and u_next[i, 1] < change:
            s.attempt += 1
            going_on.append(s)
        elif u_next[i, 2] < traffic.next_search:
            _next_intent(world, traffic, week, s, u_next[i])
            going_on.append(s)
    return going_on


def _next_intent(world: World, traffic: TrafficConfig, week: int, s: _Session, u: FloatArray) -> None:
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
    # The context tells a part of the intent where an earlier query or a watched title named it.
    said = [f" {text} " for text in (*s.earlier[-3:], *s.titles[-3:])]
    s.told = Told.NOTHING
    if s.entity != NONE and same_entity and any(f" {world.names[s.entity]} " in text for text in said):
        s.told = Told.ENTITY
    elif s.entity != NONE and same_aspect and any(f" {ASPECTS[s.aspect][0]} " in text for text in said):
        s.told = Told.ASPECT


@dataclass(frozen=True, eq=False)
class _Seen:
    click: BoolArray
    watch: FloatArray
    delay: FloatArray
    examined: IntArray
    felt: BoolArray
    scent: BoolArray


def _scan(
    world: World,
    traffic: TrafficConfig,
    intents: Intents,
    rows: IntArray,
    patience: FloatArray,
    draw: Callable[[int, int], FloatArray],
) -> _Seen:
    """Scan each list from the top: look, perhaps click, watch, perhaps stop (a cascade model with noise).

    Clicks follow what a result *seems* to be: clickbait earns clicks and short watches.
    """
    n, width = rows.shape
    grade = grades(world, intents, rows)
    safe = np.maximum(rows, 0)
    quality = world.video_quality[safe]
    appeal = np.array([0.08, 0.30, 0.50, 0.62])[grade] * (0.75 + 0.5 * quality)
    appeal = np.clip(appeal + 0.20 * world.video_clickbait[safe], 0, 0.95) * (rows >= 0)
    go_on = np.clip(traffic.scan_on + 0.10 * (patience - 0.5), 0.05, 0.97)
    u_scan, u_click, u_watch, u_felt = (draw(p, width) for p in (_P_SCAN, _P_CLICK, _P_WATCH, _P_FELT))
    ratio = np.clip(np.array([0.13, 0.26, 0.57, 0.66])[grade] * (0.6 + 0.8 * quality) + 0.8 * (u_watch - 0.5), 0.03, 1.0)
    seconds = world.catalogue.seconds[safe]
    content = (grade >= 2) & (ratio > 0.35)

    looking = np.ones(n, np.bool_)
    felt = np.zeros(n, np.bool_)
    clock = np.zeros(n)
    click, watch, delay = np.zeros((n, width), np.bool_), np.zeros((n, width)), np.zeros((n, width))
    examined = np.zeros(n, np.int64)
    for k in range(width):
        examined += looking
        clock += 1.5 * looking
        clicked = looking & (u_click[:, k] < appeal[:, k])
        click[:, k], delay[:, k] = clicked, np.where(clicked, clock, 0.0)
        watch[:, k] = np.where(clicked, np.round(ratio[:, k] * seconds[:, k], 1), 0.0)
        clock += watch[:, k]
        pleased = clicked & content[:, k]
        felt |= pleased
        stop = np.where(pleased, u_felt[:, k] < traffic.stop_when_satisfied, u_scan[:, k] >= go_on)
        looking &= ~stop
    scent = np.asarray(((grade > 0) & (np.arange(width) < examined[:, None])).any(1))
    return _Seen(click, watch, delay, examined, felt, scent)


def _session_id(week: int, user_id: str, number: int) -> str:
    return f"w{week}-{user_id}-{number}"


def _collect(week: int, log: list[_Search]) -> Week:
    log.sort(key=lambda s: (s.time, s.user, s.number))
    times = np.array([s.time for s in log])
    wanted = np.array([s.intent for s in log], np.int64).reshape(-1, 3)
    names = log[0].columns if log else {}
    return Week(
        week=week,
        query_ids=tuple(s.query_id for s in log),
        user_ids=tuple(s.user_id for s in log),
        session_ids=tuple(_session_id(week, s.user_id, s.number) for s in log),
        arms=tuple(s.arm for s in log),
        queries=tuple(s.query for s in log),
        timestamps=times,
        ranking=ShownRanking(
            np.array([s.rows for s in log]),
            np.array([s.impacted for s in log]),
            {name: np.array([s.columns[name] for s in log]) for name in names},
        ),
        click=np.array([s.click for s in log]),
        watch_seconds=np.array([s.watch for s in log]),
        click_time=times[:, None] + np.array([s.delay for s in log]),
        intents=Intents(wanted[:, 0], wanted[:, 1], wanted[:, 2]),
        typed=tuple(s.typed for s in log),
        attempt=np.array([s.attempt for s in log], np.int64),
        told=np.array([s.told is not Told.NOTHING for s in log], np.bool_),
        examined=np.array([s.examined for s in log], np.int64),
        felt=np.array([s.felt for s in log], np.bool_),
    )
