"""Pipelined scoring: finished samples are scored while the rest is still drawn, in an order that does not depend on timing."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter

from corewrite.domain import TrainingInstance
from corewrite.rewriter import Completion, Rewriter, as_rewrite
from corewrite.training.candidates import Scored, distinct_candidates, score_candidates
from corewrite.training.config import TrainingConfig
from corewrite.training.pairs import ScoredCandidate
from corewrite.training.scoring import Key, Reward


class ScoringBeside:
    """Scores a phase's samples in a thread as they are finished.

    Prompts are released in one order, by length and number as samplers take them, each when all before it are finished; a call
    of the reward is made when the rewrites released since the last one fill it. So the calls are the same however the samples
    arrive, and a score never depends on the order of drawing.

    Args:
        batch: Instances of the phase.
        place: Number of each instance's prompt.
        prompts: The prompts.
        policy: Says what a completion means.
        reward: log R of texts.
        config: Settings.
        version: Of the policy that samples.
        known: Scores of earlier phases.
    """

    def __init__(
        self,
        batch: Sequence[TrainingInstance],
        place: Sequence[int],
        prompts: Sequence[Sequence[int]],
        policy: Rewriter,
        reward: Reward,
        config: TrainingConfig,
        version: str,
        known: dict[Key, float],
    ) -> None:
        self._policy, self._reward, self._config, self._version, self._known = policy, reward, config, version, known
        self._of_prompt: dict[int, list[TrainingInstance]] = {}
        for x, i in zip(batch, place, strict=True):
            self._of_prompt.setdefault(i, []).append(x)
        self._order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        self._next = 0
        self._finished: dict[int, list[Completion]] = {}
        self._waiting: list[tuple[TrainingInstance, list[ScoredCandidate]]] = []
        self._num_waiting = 0
        self._pool = ThreadPoolExecutor(1, "scoring")
        self._calls: list[Future[tuple[Scored, float]]] = []
        self._began: float | None = None

    def ready(self, which: Sequence[int], completions: Sequence[list[Completion]]) -> None:
        """Take the samples of some prompts; see `training.samplers.protocol.Ready`."""
        self._finished.update(zip(which, completions, strict=True))
        while self._next < len(self._order) and self._order[self._next] in self._finished:
            number = self._order[self._next]
            self._next += 1
            rewrites = [as_rewrite(self._policy, c) for c in self._finished.pop(number)]
            for x in self._of_prompt.get(number, ()):
                candidates = distinct_candidates(x, rewrites, self._policy, identity=self._config.identity)
                self._waiting.append((x, candidates))
                self._num_waiting += len(candidates)
            if self._num_waiting >= self._config.scoring.batch:
                self._call()

    def finish(self, completions: Sequence[list[Completion]], progress: Callable[[int, int], None]) -> tuple[Scored, float]:
        """Score what is left; the whole phase, and the seconds that calls of the reward took.

        Args:
            completions: Of every prompt; those that were not passed to `ready` are scored now.
            progress: Called with (calls done, of how many).

        Raises:
            Whatever the reward raises, see `score_texts`.
        """
        missing = [i for i in self._order[self._next :] if i not in self._finished]
        self.ready(missing, [completions[i] for i in missing])
        self._call()
        candidates: dict[str, list[ScoredCandidate]] = {}
        lost: dict[str, str] = {}
        facts: dict[str, float] = {"reward_calls": 0, "reward_retries": 0}
        busy = 0.0
        try:
            for done, future in enumerate(self._calls, 1):
                scored, seconds = future.result()
                candidates |= scored.candidates
                lost |= scored.lost
                facts = {name: facts[name] + scored.sampled[name] for name in facts}
                busy += seconds
                progress(done, len(self._calls))
        finally:
            self.close()
        return Scored(self._version, candidates, lost, facts), busy

    def close(self) -> None:
        """Cancel the calls that have not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _call(self) -> None:
        if not self._waiting:
            return
        some, self._waiting, self._num_waiting = self._waiting, [], 0
        self._calls.append(self._pool.submit(self._score, some))

    def _score(self, some: Sequence[tuple[TrainingInstance, list[ScoredCandidate]]]) -> tuple[Scored, float]:
        began = perf_counter()
        self._began = self._began or began
        scoring = self._config.scoring
        if scoring.deadline_seconds is not None:  # of the phase, not of this call
            left = max(1e-3, scoring.deadline_seconds - (began - self._began))
            scoring = scoring.model_copy(update={"deadline_seconds": left})
        scored = score_candidates(
            [x for x, _ in some], [c for _, c in some], self._reward, scoring, version=self._version, known=self._known
        )
        return scored, perf_counter() - began
