"""The reward of a phase's rewrites: calls of fixed size and sorted order, tried again where that may help, until a deadline."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, Queue

import numpy as np
import numpy.typing as npt

from corewrite.domain import TrainingInstance
from corewrite.training.config import ScoringConfig

FloatArray = npt.NDArray[np.float64]
Reward = Callable[[Sequence[TrainingInstance], Sequence[Sequence[str]]], list[FloatArray]]
"""log R of each instance's texts (see `FusedReward`)."""
Key = tuple[str, str]
"""Instance id and text."""


class TransientRewardError(RuntimeError):
    """A reward that could not be computed now but may be in a moment: raise it, or an `OSError`, to be called again."""


@dataclass(frozen=True)
class Scores:
    """log R of rewrites.

    Attributes:
        values: By instance id and text.
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

    Args:
        instances: With distinct ids.
        texts: Texts of each.
        reward: Called with some instances and their texts; from several threads where `config.workers` is above 1.
        config: Size of a call, workers, retries, deadline.
        known: Scores from before, not computed again.
        progress: Called with (calls done, of how many).

    Raises:
        ValueError: a reward is not a number; the message names instance and text. Whatever else the reward raises that is
            neither transient nor an `OSError` is raised as it is.
    """
    by_id = {x.instance_id: x for x in instances}
    wanted = {(x.instance_id, text) for x, row in zip(instances, texts, strict=True) for text in row}
    values = {key: known[key] for key in wanted & known.keys()} if known else {}
    keys = sorted(wanted - values.keys())
    batches = [keys[i : i + config.batch] for i in range(0, len(keys), config.batch)]
    outcomes = _run(batches, lambda batch: _call(batch, by_id, reward), config, progress)
    lost: dict[str, str] = {}
    for batch, outcome in zip(batches, outcomes, strict=True):
        if isinstance(outcome.result, str):
            lost |= dict.fromkeys((instance for instance, _ in batch), outcome.result)
        else:
            values |= dict(zip(batch, outcome.result, strict=True))
    return Scores(values, lost, sum(o.calls for o in outcomes), sum(max(0, o.calls - 1) for o in outcomes))


@dataclass
class _Outcome:
    """Of one call: its scores, or why there are none."""

    result: list[float] | str
    calls: int


def _call(batch: Sequence[Key], by_id: Mapping[str, TrainingInstance], reward: Reward) -> list[float]:
    """One call of the reward; `batch` is sorted, so the texts of an instance stand together."""
    rows: dict[str, list[str]] = {}
    for instance, text in batch:
        rows.setdefault(instance, []).append(text)
    scores = reward([by_id[i] for i in rows], list(rows.values()))
    given, asked = [len(s) for s in scores], [len(row) for row in rows.values()]
    if given != asked:
        raise ValueError(f"the reward gave {sum(given)} numbers for {len(batch)} rewrites: {given} for texts {asked}")
    flat = np.concatenate(scores)
    if not np.isfinite(flat).all():
        instance, text = batch[int(np.flatnonzero(~np.isfinite(flat))[0])]
        raise ValueError(
            f"the reward of rewrite {text!r} of instance {instance!r} is not a number: does the relevance model score all "
            "documents of D+ and D-?"
        )
    return [float(v) for v in flat]


def _run(
    batches: Sequence[Sequence[Key]],
    call: Callable[[Sequence[Key]], list[float]],
    config: ScoringConfig,
    progress: Callable[[int, int], None],
) -> list[_Outcome]:
    """The outcome of every batch; what the deadline cuts off or fails at every try is lost, any other error is raised."""
    deadline = None if config.deadline_seconds is None else time.monotonic() + config.deadline_seconds
    late = f"not scored within {config.deadline_seconds} s"
    outcomes = [_Outcome(late, 0) for _ in batches]
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
    call: Callable[[Sequence[Key]], list[float]],
    config: ScoringConfig,
    deadline: float | None,
    stop: threading.Event,
) -> _Outcome:
    """A call and its further tries; given up where `stop` is set meanwhile."""
    attempt = 0
    while True:
        try:
            return _Outcome(call(batch), attempt + 1)
        except (TransientRewardError, OSError) as error:
            pause = 2.0**attempt
            late = deadline is not None and time.monotonic() + pause > deadline
            if attempt == config.retries or late or stop.is_set():
                return _Outcome(f"{type(error).__name__}: {error}"[:200], attempt + 1)
            time.sleep(pause)
            attempt += 1
