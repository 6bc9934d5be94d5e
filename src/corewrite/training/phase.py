"""What a phase has: its batch of instances, its preference rows, and the rollouts that run beside the phase before."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ParamSpec

import numpy as np

from corewrite.domain import Query, TrainingInstance, drops_protected, words
from corewrite.domain.filters import NO_FILTERS, RewriteFilters
from corewrite.rewriter import Rewriter
from corewrite.training import parallel
from corewrite.training.candidates import Scored
from corewrite.training.config import TrainingConfig
from corewrite.training.pairs import ScoredCandidate, select_pairs
from corewrite.training.rows import Row

P = ParamSpec("P")


def check_inputs(instances: Sequence[TrainingInstance], config: TrainingConfig) -> None:
    """Refuse instances and settings that no run can be trained with.

    Raises:
        ValueError: no instance, one that is kept for the gate, two of one id, or phases that overlap in several processes.
    """
    if not instances:
        raise ValueError("training needs instances: the log holds no search with both D+ and D-")
    if (kept := next((x for x in instances if x.evaluation_only), None)) is not None:
        raise ValueError(f"instance {kept.instance_id!r} is kept for the gate: training on it would blind the gate")
    if (twice := Counter(x.instance_id for x in instances).most_common(1)[0])[1] > 1:
        raise ValueError(f"{twice[1]} instances are called {twice[0]!r}: their rewrites and rewards go by that id")
    if config.overlap and parallel.world() > 1:
        raise ValueError("phases cannot overlap in several processes: their messages would cross; set overlap: false")


class Batches:
    """The instances of each phase: consecutive slices of one random order, which starts over where it ends.

    Args:
        instances: Of the run.
        config: Settings.
        seed: Key of the order.
    """

    def __init__(self, instances: Sequence[TrainingInstance], config: TrainingConfig, seed: int) -> None:
        self._instances = instances
        self._size = min(config.instances_per_phase, len(instances))
        self._order = np.random.default_rng([seed, 72]).permutation(len(instances))
        self.repeat = config.phases * self._size > len(instances)
        """Whether an instance comes in more than one phase."""

    def __getitem__(self, phase: int) -> list[TrainingInstance]:
        """Instances of a phase, counted from 0."""
        n, start = len(self._instances), phase * self._size
        return [self._instances[self._order[(start + i) % n]] for i in range(self._size)]


class Background:
    """One job in a thread: a checkpoint beside the sampling, or the next phase's rollouts beside the steps (`overlap`)."""

    def __init__(self) -> None:
        self._job: Future[None] | None = None

    def start(self, job: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Begin a job; the one before must have been waited for."""
        pool = ThreadPoolExecutor(1)
        self._job = pool.submit(job, *args, **kwargs)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Until the job is done, at once where there is none; raises what it raised."""
        if (job := self._job) is not None:
            self._job = None
            job.result()


@dataclass(frozen=True)
class Selection:
    """Rules of a run by which pairs are selected, beside its settings.

    Attributes:
        shorter_first: Of equally good rewrites the fewer tokens are chosen; False: as earlier versions did, by text hash alone.
        protected_words: A candidate that drops one of these, or a number, counts as the worst of its instance: the gate would
            not let it serve. None: nothing is protected.
        filters: A candidate that one of them stops counts as the worst of its instance too, and is never chosen.
    """

    shorter_first: bool = True
    protected_words: frozenset[str] | None = None
    filters: RewriteFilters = NO_FILTERS


def select_rows(
    policy: Rewriter,
    batch: Sequence[TrainingInstance],
    scored: Scored,
    config: TrainingConfig,
    selection: Selection = Selection(),
    *,
    phase: int,
) -> list[Row]:
    """Top-k / bottom-k preference pairs of every instance that has one, with its prompt.

    Args:
        policy: Builds the prompts.
        batch: The phase's instances.
        scored: Their candidates.
        config: Settings.
        selection: Rules of the run.
        phase: For messages.

    Raises:
        ValueError: no instance of the phase has a pair.
        FilterError: a filter that is not ours failed.
    """
    rows = []
    for x in batch:
        candidates: Sequence[ScoredCandidate] = scored.candidates.get(x.instance_id, ())
        if selection.protected_words is not None:
            candidates = _droppers_last(x.query.text, candidates, selection.protected_words)
        candidates = _filtered_last(x.query, candidates, selection.filters)
        pairs = select_pairs(candidates, config.k, config.minimum_gap, shorter_first=selection.shorter_first)
        if pairs:
            rows.append(Row(x.instance_id, tuple(policy.template.encode(x.query)), tuple(pairs)))
    if rows:
        return rows
    if scored.lost:
        instance, reason = next(iter(scored.lost.items()))
        raise ValueError(
            f"phase {phase}: {len(scored.lost)} of {len(batch)} instances were not scored, {instance!r} for one: {reason}"
        )
    raise ValueError(
        f"phase {phase} gave no preference pair from {len(batch)} instances: no sampled rewrite beats another by "
        f"{config.minimum_gap} nats of log R; lower minimum_gap, sample more, or warm-start the policy further"
    )


def _droppers_last(query: str, candidates: Sequence[ScoredCandidate], protected: frozenset[str]) -> list[ScoredCandidate]:
    """Candidates, those that drop a protected word of the query with the lowest log R of all."""
    own = words(query)
    lowest = _lowest(candidates)
    return [replace(c, log_reward=lowest) if drops_protected(own, words(c.text), protected) else c for c in candidates]


def _filtered_last(query: Query, candidates: Sequence[ScoredCandidate], filters: RewriteFilters) -> Sequence[ScoredCandidate]:
    """Candidates, those that a filter stops with the lowest log R of all, and not to be chosen where all are equal."""
    hits = filters.hits(query, [c.text for c in candidates])
    if not any(hits):
        return candidates
    lowest = _lowest(candidates)
    return [replace(c, log_reward=lowest, malformed=True) if hit else c for c, hit in zip(candidates, hits, strict=True)]


def _lowest(candidates: Sequence[ScoredCandidate]) -> float:
    return min((c.log_reward for c in candidates), default=0.0)
