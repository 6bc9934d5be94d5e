"""The reward of a phase's rewrites: calls of fixed size and sorted order, tried again where that may help, until a deadline.

What has no score then is lost, with the reason, and counted: a ranker of one's own that has a bad minute costs instances, not
the run.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from queue import Empty, Queue

import numpy as np
import numpy.typing as npt

from corewrite.domain import TrainingInstance
from corewrite.relevance.backends.errors import ScoreError
from corewrite.training.config import ScoringConfig

FloatArray = npt.NDArray[np.float64]
Reward = Callable[[Sequence[TrainingInstance], Sequence[Sequence[str]]], list[FloatArray]]
"""log R of each instance's texts (see `FusedReward`); not finite where it could not be computed."""
Key = tuple[str, str]
"""Instance id and text."""


class TransientRewardError(RuntimeError):
    """A reward that could not be computed now but may be in a moment: raise it, or an `OSError`, to be called again."""


@dataclass(frozen=True)
class Scores:
    """log R of rewrites.

    Attributes:
        values: By instance id and text, finite.
        lost: Why, by the id of instances that have not all of theirs.
        calls, retries: Calls of the reward that were begun, and of those again.
    """

    values: dict[Key, float]
    lost: dict[str, str] = field(default_factory=dict)
    calls: int = 0
    retries: int = 0


def score_texts(
    instances: Sequence[TrainingInstance],
    texts: Sequence[Sequence[str]],
    reward: Reward,
    config: ScoringConfig,
    known: Mapping[Key, float] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Score every distinct text of every instance once.

    A call that fails for a passing reason, or leaves a text without a finite number, is made again as a whole, so that a
    batch is always the same batch; of every text the first finite number counts.

    Args:
        instances: With distinct ids.
        texts: Texts of each.
        reward: Called with some instances and their texts; from several threads where `config.workers` is above 1.
        config: Size of a call, workers, retries, deadline.
        known: Scores from before, not computed again.
        progress: Called with (calls done, of how many).

    Raises:
        ValueError: the reward gives too few or too many numbers. Whatever else it raises that is neither transient, nor an
            `OSError`, nor a `ScoreError` (which names one document, and costs the instances that hold it) is raised as it is.
    """
    by_id = {x.instance_id: x for x in instances}
    wanted = {(x.instance_id, text) for x, row in zip(instances, texts, strict=True) for text in row}
    values = {key: known[key] for key in wanted & known.keys()} if known else {}
    keys = sorted(wanted - values.keys())
    batches = [keys[i : i + config.batch] for i in range(0, len(keys), config.batch)]
    outcomes = _run(batches, lambda batch: _call(batch, by_id, reward), config, progress)
    lost: dict[str, str] = {}
    for batch, outcome in zip(batches, outcomes, strict=True):
        values |= outcome.values
        for instance, _ in (key for key in batch if key not in outcome.values):
            lost.setdefault(instance, outcome.reasons.get(instance, f"not scored within {config.deadline_seconds} s"))
    return Scores(values, lost, sum(o.calls for o in outcomes), sum(max(0, o.calls - 1) for o in outcomes))


def retried(reward: Reward, config: ScoringConfig) -> Reward:
    """`reward` called as a phase calls it, for few texts outside one: NaN where there is no score in the end.

    The instances of a call must have distinct ids.
    """

    def call(instances: Sequence[TrainingInstance], texts: Sequence[Sequence[str]]) -> list[FloatArray]:
        found = score_texts(instances, texts, reward, config).values
        return [
            np.array([found.get((x.instance_id, text), np.nan) for text in row], np.float64)
            for x, row in zip(instances, texts, strict=True)
        ]

    return call


@dataclass
class _Outcome:
    """Of one batch: the scores there are; by instance, why it has not all; calls begun."""

    values: dict[Key, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    calls: int = 0


def _call(batch: Sequence[Key], by_id: Mapping[str, TrainingInstance], reward: Reward) -> _Outcome:
    """One call of the reward; `batch` is sorted, so the texts of an instance stand together."""
    rows: dict[str, list[str]] = {}
    for instance, text in batch:
        rows.setdefault(instance, []).append(text)
    try:
        scores = reward([by_id[i] for i in rows], list(rows.values()))
    except ScoreError as error:
        if len(rows) == 1:
            return _Outcome(reasons=dict.fromkeys(rows, _said(error)))
        # A document of one instance has no score: the others are asked about without it.
        alone = [_call([(i, text) for text in row], by_id, reward) for i, row in rows.items()]
        return _Outcome({k: v for o in alone for k, v in o.values.items()}, {k: v for o in alone for k, v in o.reasons.items()})
    given, asked = [len(s) for s in scores], [len(row) for row in rows.values()]
    if given != asked:
        raise ValueError(f"the reward gave {sum(given)} numbers for {len(batch)} rewrites: {given} for texts {asked}")
    found = dict(zip(batch, np.concatenate(scores).tolist(), strict=True))
    bad = {instance: f"the reward of {text!r} is {v}" for (instance, text), v in found.items() if not isfinite(v)}
    return _Outcome({key: v for key, v in found.items() if isfinite(v)}, bad)


def _run(
    batches: Sequence[Sequence[Key]],
    call: Callable[[Sequence[Key]], _Outcome],
    config: ScoringConfig,
    progress: Callable[[int, int], None],
) -> list[_Outcome]:
    """The outcome of every batch; what the deadline cuts off or fails at every try is lost, any other error is raised."""
    deadline = None if config.deadline_seconds is None else time.monotonic() + config.deadline_seconds
    outcomes = [_Outcome() for _ in batches]
    if config.workers == 1 and deadline is None:
        for number, batch in enumerate(batches):
            outcomes[number] = _tried(batch, call, config, None, threading.Event())
            progress(number + 1, len(batches))
        return outcomes
    waiting: Queue[int] = Queue()
    finished: Queue[tuple[int, _Outcome | Exception]] = Queue()
    for number in range(len(batches)):
        waiting.put(number)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                number = waiting.get_nowait()
            except Empty:
                return
            outcomes[number].calls = 1
            try:
                finished.put((number, _tried(batches[number], call, config, deadline, stop)))
            except Exception as error:
                stop.set()
                finished.put((number, error))

    # Daemons: a call that never comes back must not hold the process.
    for _ in range(min(config.workers, len(batches))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for done in range(len(batches)):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                number, outcome = finished.get(timeout=left)
            except Empty:
                break
            if isinstance(outcome, Exception):
                raise outcome
            outcomes[number] = outcome
            progress(done + 1, len(batches))
    finally:
        stop.set()
    return outcomes


def _tried(
    batch: Sequence[Key],
    call: Callable[[Sequence[Key]], _Outcome],
    config: ScoringConfig,
    deadline: float | None,
    stop: threading.Event,
) -> _Outcome:
    """A call and its further tries; given up where `stop` is set meanwhile."""
    found, calls = dict[Key, float](), 0
    while True:
        try:
            outcome = call(batch)
        except (TransientRewardError, OSError) as error:
            outcome = _Outcome(reasons=dict.fromkeys((instance for instance, _ in batch), _said(error)))
        found, pause, calls = outcome.values | found, 2.0**calls, calls + 1
        late = deadline is not None and time.monotonic() + pause > deadline
        if len(found) == len(batch) or calls > config.retries or late or stop.is_set():
            return _Outcome(found, outcome.reasons, calls)
        time.sleep(pause)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
