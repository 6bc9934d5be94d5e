"""After a promote: who gets the new champion, and the stop that rolls it back by itself."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from corewrite.experiment import RampConfig, RampDecision, RampState, observe, step
from corewrite.experiment.ramp_file import read_ramp as read_ramp_file
from corewrite.experiment.ramp_file import write_ramp
from corewrite.pipeline.journal import cycle_lock
from corewrite.registry import ConflictError, Decision, Registry


class RampError(ValueError):
    """A ramp that cannot go on; the message says why and what to do."""


def ramp_file(run: Path) -> Path:
    """Where a run keeps its ramp."""
    return run / "ramp.json"


def read_ramp(run: Path) -> tuple[RampState, RampConfig] | None:
    """The ramp of a run and the settings it began under; None where none is."""
    return read_ramp_file(ramp_file(run))


def begin_ramp(run: Path, promoted: Decision, config: RampConfig) -> RampState:
    """Begin a ramp for a policy that was just promoted over another; one that is there for it already stays.

    Where the ramp of the policy before is still under way, most users have the one before that, and keep it.

    Args:
        run: Run folder.
        promoted: The decision, with a champion before it.
        config: Of the ramp.
    """
    found = read_ramp(run)
    if found is not None and found[0].champion >= promoted.number:
        return found[0]
    assert promoted.previous is not None
    unfinished = found is not None and found[0].status == "running" and found[0].champion == promoted.previous
    previous = found[0].previous if found is not None and unfinished else promoted.previous
    state = RampState(promoted.number, previous, seconds_of(promoted))
    write_ramp(ramp_file(run), state, config)
    return state


def carry_ramp(run: Path, promoted: Decision) -> None:
    """Let a ramp under way go on when its policy is promoted again, under another relevance model or spec.

    Args:
        run: Run folder.
        promoted: That decision.
    """
    found = read_ramp(run)
    if found is not None and found[0].status == "running" and found[0].champion == promoted.previous:
        write_ramp(ramp_file(run), found[0].carried(promoted.number, seconds_of(promoted)), found[1])


def seconds_of(decision: Decision) -> float:
    """When a decision was taken, seconds since 1970."""
    return datetime.fromisoformat(decision.time).timestamp()


def ramp_of(run: Path) -> tuple[RampState, RampConfig]:
    """The ramp of a run and the settings it began under.

    Raises:
        RampError: there is none.
    """
    found = read_ramp(run)
    if found is None:
        raise RampError(f"{run} has no ramp: one begins with a promote")
    return found


def ramp_step(run: Path, searches: pa.Table, *, observation: str, until: float) -> RampDecision:
    """Take the stage's searches in, and roll back in the registry where the sequential stop says so.

    Args:
        run: Run folder.
        searches: One row a search since the stage began: user_id, arm, timestamp, gave_up, error, neutral.
        observation: Names the observation; one that was taken in before changes nothing.
        until: End of the log, seconds, all outcomes settled.

    Raises:
        RampError: no ramp is under way.
        ValueError: the table is refused, see `experiment.observe`.
        CycleRunningError: a cycle is at work.
    """
    with cycle_lock(run):
        before, config = ramp_of(run)
        seen = observe(searches, observation_id=observation, since=before.since, until=until)
        state, decision = step(before, seen, config)
        write_ramp(ramp_file(run), state, config)
        # The state first: killed here, the same observation gives the same decision, and the registry follows.
        if decision.kind == "rollback":
            registry = Registry(run / "registry")
            with suppress(ConflictError):  # the champion is another by now: rolled back before, or by hand
                reason = f"ramp at {decision.share:.0%} of users: {decision.reason}"
                registry.rollback(expected=state.champion, to=state.previous, reason=reason)
        return decision
