"""A week of searches: users with hidden intents meet a ranking, session by session.

Sessions are simulated in rounds, all active sessions at once, so that the search engine is asked in batches. Every random
number is keyed by (seed, week, user, session, search, purpose): two arms that serve the same user see common random
numbers, and neither batch size nor order changes a draw.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from corewrite.domain import Context, Query, keyed_bits, keyed_uniform
from corewrite.simulation import purposes
from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.examination import examine
from corewrite.simulation.intents import Intents
from corewrite.simulation.queries import DRAWS, Told, Typed, type_query
from corewrite.simulation.sessions import Session, next_intent, number_within_user, open_sessions
from corewrite.simulation.week import Asked, Engine, ShownRanking, Week
from corewrite.simulation.world import World

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_ROUNDS: Final = 10


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
    number = number_within_user(users)
    start = open_sessions(world, traffic, week, users.astype(np.int64), number, assign_arm)
    log: list[_Search] = []
    active = start
    for round_number in range(_ROUNDS):
        progress(round_number, _ROUNDS)
        if not active:
            break
        active = _round(world, traffic, engine, week, active, log)
    progress(_ROUNDS, _ROUNDS)
    return _collect(week, log)


def _round(
    world: World,
    traffic: TrafficConfig,
    engine: Engine,
    week: int,
    active: list[Session],
    log: list[_Search],
) -> list[Session]:
    """One search of every active session; returns the sessions that go on."""
    seed = world.config.seed
    user = np.array([s.user for s in active])
    number = np.array([s.number for s in active])
    step = np.array([s.step for s in active])

    def draw(purpose: int, width: int) -> FloatArray:
        wide = np.arange(width)[None, :]
        return keyed_uniform(seed, week, user[:, None], number[:, None], step[:, None], wide, purpose)

    u_type, fashion = draw(purposes.TYPE, DRAWS), world.fashion(week)
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
    seen = examine(world, traffic, intents, ranking.rows, keyed_uniform(seed, user, 77), draw)

    u_next = draw(purposes.NEXT, 10)
    going_on: list[Session] = []
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
            next_intent(world, traffic, week, s, u_next[i])
            going_on.append(s)
    return going_on


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
