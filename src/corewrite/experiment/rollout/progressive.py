"""The progressive rollout after a promote: shadow, 1 %, 10 %, 50 %, all; pure, so that it can be replayed."""

import math
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from pydantic import TypeAdapter

from corewrite.domain.traffic_split import in_treatment
from corewrite.experiment.rollout.config import Limit, Metric, RolloutConfig
from corewrite.experiment.rollout.users import Observation, Sums
from corewrite.experiment.sequential import contrast_bounds


@dataclass(frozen=True)
class RolloutDecision:
    """The decision after an observation.

    Attributes:
        observation: Its id.
        at: Its `until`, seconds.
        share: Share of the stage it was made in.
        kind: "wait", "advance" (to the next stage), "complete" (all users) or "rollback".
        reason: Why, with the numbers.
        metric: The deciding metric, the one farthest beyond its limit or closest to it; None where users are too few.
        bound: Of treatment - times_control * control: the lower one for a rollback, else the upper one.
        margin: The limit's `plus`, which `bound` is compared with.
        missing_users: Of a wait: users an arm still needs, an estimate where a bound decides; None where more users
            would not help if things stay as they look.
    """

    observation: str
    at: float
    share: float
    kind: Literal["wait", "advance", "complete", "rollback"]
    reason: str
    metric: Metric | None = None
    bound: float | None = None
    margin: float | None = None
    missing_users: int | None = None


@dataclass(frozen=True)
class RolloutState:
    """Where a rollout stands; a new rollout is at `RolloutState(champion, previous, since)`.

    Attributes:
        champion: Registry version being rolled out.
        previous: Version that serves all others, and everybody after a rollback.
        since: When the stage began, seconds.
        stage: Index of the stage; stays at the last one when complete and where it was after a rollback.
        status: "running", "complete" or "rolled back"; the latter two are final.
        control, treatment: The stage's arms as last observed.
        history: All decisions, oldest first.
        users_of: Version whose rollout drew the users; None: this one.
    """

    champion: int
    previous: int
    since: float
    stage: int = 0
    status: Literal["running", "complete", "rolled back"] = "running"
    control: Sums = field(default_factory=Sums)
    treatment: Sums = field(default_factory=Sums)
    history: tuple[RolloutDecision, ...] = ()
    users_of: int | None = None

    def share(self, config: RolloutConfig) -> float:
        """Share of users who get `champion`."""
        return {"running": config.stages[self.stage].share, "complete": 1.0, "rolled back": 0.0}[self.status]

    def version_for(self, user_id: str, config: RolloutConfig) -> int:
        """Version whose answer a user sees."""
        # The salt is that of all versions: users keep their version over an upgrade.
        salt = f"ramp-{self.champion if self.users_of is None else self.users_of}"
        return self.champion if in_treatment(user_id, salt, self.share(config)) else self.previous

    def carried(self, champion: int, since: float) -> "RolloutState":
        """The rollout of the same policy under a new version number, as a new relevance model or spec gives it.

        The stage is kept, with its users, and begins again: what they saw until now came from another ranker.

        Args:
            champion: The new version.
            since: When it began to serve, seconds.
        """
        drawn = self.champion if self.users_of is None else self.users_of
        return replace(self, champion=champion, since=since, control=Sums(), treatment=Sums(), users_of=drawn)

    def to_json(self) -> str:
        """The state as JSON, for `from_json`."""
        return _JSON.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> "RolloutState":
        """Read what `to_json` wrote.

        Raises:
            ValueError: `text` is not the state of a rollout.
        """
        return _JSON.validate_json(text)


_JSON: Final = TypeAdapter(RolloutState)


@dataclass(frozen=True)
class _Reading:
    """Treatment - times_control * control, with its bounds."""

    metric: Metric
    limit: Limit
    contrast: float
    low: float
    high: float


def step(state: RolloutState, observation: Observation, config: RolloutConfig) -> tuple[RolloutState, RolloutDecision]:
    """Take one observation in.

    - rollback: the lower bound of some metric is above its limit. No number of users is waited for, the bounds
      hold from the first.
    - advance, or complete in the last stage: the users are enough and every upper bound is within its limit.
    - wait: everything else.

    An observation that was seen before changes nothing and gives the same decision again, and so does, with the
    last decision, any observation once the rollout is over: a caller that was killed may simply repeat itself.

    Args:
        state: Where the rollout stands.
        observation: The stage so far, from its beginning.
        config: The same throughout a rollout.

    Raises:
        ValueError: the observation is new, but of another stage, or has fewer users than one before it; or the rollout is over
            and has no decision.
    """
    seen = {decision.observation: decision for decision in state.history}
    if observation.id in seen:
        return state, seen[observation.id]
    if state.status != "running":
        if not state.history:
            raise ValueError(
                f"the rollout of version {state.champion} is {state.status}, and no decision says why: restore its file"
            )
        return state, state.history[-1]
    _check(state, observation)
    decision = _decide(state, observation, config)
    after = replace(state, control=observation.control, treatment=observation.treatment, history=(*state.history, decision))
    if decision.kind == "rollback":
        return replace(after, status="rolled back"), decision
    if decision.kind == "complete":
        return replace(after, status="complete"), decision
    if decision.kind == "advance":
        # The next stage's statistics are its own: users who change arm would otherwise be in both.
        return replace(after, stage=state.stage + 1, since=observation.until, control=Sums(), treatment=Sums()), decision
    return after, decision


def _check(state: RolloutState, observation: Observation) -> None:
    if observation.since != state.since:
        raise ValueError(
            f"observation {observation.id!r} begins at {observation.since:.0f}, the stage at {state.since:.0f}: "
            "observe the searches since RolloutState.since"
        )
    for now, before in ((observation.control, state.control), (observation.treatment, state.treatment)):
        if now.users < before.users:
            raise ValueError(
                f"observation {observation.id!r} has {now.users} users in an arm, an earlier one had {before.users}: "
                "observe the whole stage, not only what is new"
            )


def _decide(state: RolloutState, observation: Observation, config: RolloutConfig) -> RolloutDecision:
    stage = config.stages[state.stage]
    base = RolloutDecision(observation.id, observation.until, stage.share, "wait", "")
    readings = [_read(metric, limit, observation, config.level) for metric, limit in stage.limits.items()]
    worst = max(readings, key=lambda r: r.low - r.limit.plus)
    if worst.low > worst.limit.plus:
        reason = f"{worst.metric} is above its limit: {_words(worst, 'lower', worst.low)}"
        return replace(base, kind="rollback", reason=reason, metric=worst.metric, bound=worst.low, margin=worst.limit.plus)
    arms = {"treatment": observation.treatment.users} | ({"control": observation.control.users} if stage.share else {})
    fewest = min(arms, key=lambda arm: arms[arm])
    if observation.lost_share > config.lost_share:
        reason = (
            f"{observation.lost_share:.1%} of the searches are not in the log, at most {config.lost_share:.1%} may be: what is "
            "lost may be what is wrong; give the log room, and look again at days that are whole"
        )
        return replace(base, reason=reason)
    if arms[fewest] < stage.minimum_users:
        missing = stage.minimum_users - arms[fewest]
        reason = f"{fewest} has {arms[fewest]} of {stage.minimum_users} users: {missing} are missing"
        return replace(base, reason=reason, missing_users=missing)
    tightest = max(readings, key=lambda r: r.high - r.limit.plus)
    decided = replace(base, metric=tightest.metric, bound=tightest.high, margin=tightest.limit.plus)
    numbers = _words(tightest, "upper", tightest.high)
    if tightest.high <= tightest.limit.plus:
        last = state.stage + 1 == len(config.stages)
        kind: Literal["complete", "advance"] = "complete" if last else "advance"
        return replace(decided, kind=kind, reason=f"all metrics are within their limits, closest {tightest.metric}: {numbers}")
    missing_users = _missing(tightest, arms[fewest])
    hint = "it must fall first" if missing_users is None else f"about {missing_users} users are missing"
    reason = f"{tightest.metric} is not shown to be within its limit: {numbers}; {hint}"
    return replace(decided, reason=reason, missing_users=missing_users)


def _read(metric: Metric, limit: Limit, observation: Observation, level: float) -> _Reading:
    control, treatment, times = observation.control, observation.treatment, limit.times_control
    # Of nobody there is nothing to say, and nothing is missing.
    found = [getattr(arm, metric) if arm.users else 0.0 for arm in (control, treatment)]
    if None in found:
        raise ValueError(
            f"the observation says nothing of {metric}, which the stage limits: bring the searches with the columns changed "
            "and unsatisfied, or drop the limit"
        )
    sums = float(found[0]), float(found[1])
    low, high = contrast_bounds(control.users, sums[0], treatment.users, sums[1], times_control=times, alpha=level)
    # An arm without users has no mean; its bounds decide nothing, so neither does what stands here.
    means = [sum / max(users, 1) for sum, users in zip(sums, (control.users, treatment.users), strict=True)]
    return _Reading(metric, limit, means[1] - times * means[0], float(low), float(high))


def _missing(reading: _Reading, users: int) -> int | None:
    """More users until the upper bound is within the limit, if its distance shrinks with their square root."""
    room = reading.limit.plus - reading.contrast
    if room <= 0:
        return None
    return math.ceil(users * (((reading.high - reading.contrast) / room) ** 2 - 1))


def _words(reading: _Reading, side: str, bound: float) -> str:
    times, margin = reading.limit.times_control, reading.limit.plus
    contrast = f"treatment - {times:g} * control" if times else "treatment"
    return f"{contrast} is {reading.contrast:+.4f}, {side} bound {bound:+.4f}, margin {margin:+.4f}"
