"""The progressive rollout of a new champion after a promote, which rolls itself back."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout

from corewrite.cycle.config import CycleConfig
from corewrite.cycle.mined_week import first_thresholds
from corewrite.deployment.documents import open_documents
from corewrite.deployment.load import load_deployment
from corewrite.deployment.open import RankerOpener
from corewrite.experiment import RolloutConfig, RolloutDecision, RolloutState, observe, step
from corewrite.experiment.rollout.file import load_rollout as load_rollout_file
from corewrite.experiment.rollout.file import save_rollout
from corewrite.experiment.rollout.searches import NOTHING, StageSearches, rollout_searches
from corewrite.logs.files import log_files
from corewrite.logs.sealing import load_keys
from corewrite.registry import ConflictError, Decision, Registry
from corewrite.search import top_overlap
from corewrite.storage.durable import make_folder
from corewrite.storage.run_layout import RunLayout

_PATIENCE = 60.0
"""Seconds to wait for who changes the rollout at the moment."""


class RolloutError(ValueError):
    """A rollout that cannot go on; the message says why and what to do."""


def rollout_file(run: Path) -> Path:
    """Where a run keeps its rollout."""
    return RunLayout(run).rollout_file


def load_rollout(run: Path) -> tuple[RolloutState, RolloutConfig] | None:
    """The rollout of a run and the settings it began under; None where none is."""
    return load_rollout_file(rollout_file(run))


def begin_rollout(run: Path, promoted: Decision, config: RolloutConfig) -> RolloutState:
    """Begin a rollout for a policy that was just promoted over another; one that is there for it already stays.

    Where the rollout of the policy before is still under way, most users have the one before that, and keep it.

    Args:
        run: Run folder.
        promoted: The decision, with a champion before it.
        config: Of the rollout.
    """
    found = load_rollout(run)
    if found is not None and found[0].champion >= promoted.number:
        return found[0]
    assert promoted.previous is not None
    previous = found[0].previous if found is not None and _unfinished(found[0], promoted) else promoted.previous
    state = RolloutState(promoted.number, previous, decision_seconds(promoted))
    save_rollout(rollout_file(run), state, config)
    return state


def carry_rollout(run: Path, promoted: Decision) -> None:
    """Let a rollout under way go on when its policy is promoted again, under another relevance model or spec.

    Args:
        run: Run folder.
        promoted: That decision.
    """
    found = load_rollout(run)
    if found is not None and _unfinished(found[0], promoted):
        save_rollout(rollout_file(run), found[0].carried(promoted.number, decision_seconds(promoted)), found[1])


def _unfinished(state: RolloutState, promoted: Decision) -> bool:
    """Whether most users had another version before a promote; rolled back in the moment of it, the registry did not follow."""
    return state.champion == promoted.previous and state.status != "complete"


def decision_seconds(decision: Decision) -> float:
    """When a decision was taken, seconds since 1970."""
    return datetime.fromisoformat(decision.time).timestamp()


def require_rollout(run: Path) -> tuple[RolloutState, RolloutConfig]:
    """The rollout of a run and the settings it began under.

    Raises:
        RolloutError: there is none.
    """
    found = load_rollout(run)
    if found is None:
        raise RolloutError(
            f"{run} has no rollout: one begins where a cycle promotes over a champion; the first champion serves its arm at "
            "once"
        )
    return found


@contextmanager
def rollout_lock(run: Path) -> Iterator[None]:
    """Hold the rollout, and the champion with it: a promote and its rollout must not be come between.

    Not the cycle's lock: a cycle takes hours, and a harm must be rolled back meanwhile.

    Raises:
        RolloutError: another process holds it and does not let go.
    """
    make_folder(run)
    lock = FileLock(RunLayout(run).rollout_lock)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise RolloutError(
            f"another process has been changing the rollout of {run} for {_PATIENCE:.0f} s: try again"
        ) from error
    try:
        yield
    finally:
        lock.release()


def stage_searches(config: CycleConfig, log: Path) -> StageSearches:
    """What the log says of the stage that a run's rollout is at.

    Outcomes are those of the cycle: by the texts' overlap under the ranking without a rewriter of the version before, and by
    the run's frozen thresholds.

    Args:
        config: Settings of the cycle.
        log: Of the server: a file, or a folder of them.

    Raises:
        RolloutError: there is no rollout.
        LogError: see `rollout_searches`.
    """
    state, settings = require_rollout(config.run)
    if state.status != "running":  # it is over, and what is served now is no part of it
        return NOTHING
    share = state.share(settings)
    unseal = None if config.privacy.keys is None else load_keys(config.privacy.keys).open_line
    if share == 0:
        return rollout_searches(log_files(log), champion=state.champion, share=share, unseal=unseal)
    registry = Registry(RunLayout(config.run).registry)
    before = registry.decisions()[state.previous - 1].candidate
    assert before is not None
    opener = RankerOpener(config.ranker, open_documents(config.documents, config.ranker))
    overlap = top_overlap(load_deployment(registry, opener, before.relevance, before.spec).cascade)
    return rollout_searches(
        log_files(log),
        champion=state.champion,
        share=share,
        overlap=overlap,
        thresholds=first_thresholds(config.run),
        unseal=unseal,
    )


def rollout_step(run: Path, searches: pa.Table, *, observation: str, until: float, lost_share: float = 0.0) -> RolloutDecision:
    """Take the stage's searches in, and roll back in the registry where the sequential stop says so.

    Args:
        run: Run folder.
        searches: One row a search since the stage began: user_id, arm, timestamp, gave_up, error, neutral.
        observation: Names the observation; one that was taken in before changes nothing.
        lost_share: Share of the searches whose line the log has lost.
        until: End of the log, seconds, all outcomes settled. Before the stage began, nobody has been seen yet.

    Raises:
        RolloutError: no rollout is under way.
        ValueError: the table is refused, see `experiment.observe`.
    """
    with rollout_lock(run):
        before, config = require_rollout(run)
        end = max(until, before.since)
        seen = observe(searches, observation_id=observation, since=before.since, until=end, lost_share=lost_share)
        state, decision = step(before, seen, config)
        save_rollout(rollout_file(run), state, config)
        # The state first: killed here, the same observation gives the same decision, and the registry follows.
        if decision.kind == "rollback":
            registry = Registry(RunLayout(run).registry)
            with suppress(ConflictError):  # the champion is another by now: rolled back before, or by hand
                reason = f"rollout at {decision.share:.0%} of users: {decision.reason}"
                registry.rollback(expected=state.champion, to=state.previous, reason=reason)
        return decision
