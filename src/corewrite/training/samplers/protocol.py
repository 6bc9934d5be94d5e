"""The protocol of sampling engines, whether the weights live in this process or on a server."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from corewrite.rewriter import Completion, Rewriter

SampleProgress = Callable[[int, int], None]
Ready = Callable[[Sequence[int], Sequence[list[Completion]]], None]
"""Takes the numbers of some prompts and their samples, as soon as they are finished."""


def _ignore(which: Sequence[int], completions: Sequence[list[Completion]]) -> None: ...


IGNORE_READY: Ready = _ignore


class StalePolicyError(RuntimeError):
    """An engine asked to sample from a policy version that it does not hold whole."""


@dataclass(frozen=True)
class Sync:
    """One transfer of weights to an engine.

    Attributes:
        version: Name of the weights that the engine now holds, the same for the same weights.
        bytes: Bytes of weights handed over.
        hashing: Computes the policy's hash beside the sampling; None: `version` is that hash.
    """

    version: str
    bytes: int
    hashing: "Future[str] | None" = None

    @property
    def policy_hash(self) -> str:
        """`Rewriter.policy_hash` of what was synced; waits for it. Only then may the policy's weights change."""
        return self.version if self.hashing is None else self.hashing.result()


class SamplingEngine(Protocol):
    """Samples from a policy it was given once per phase.

    Ordering contract: `sync` before `sample`, and whoever samples says which version is expected.

        sync = engine.sync(policy)
        completions = engine.sample(prompts, 16, expected=sync.version, ...)
        train(policy)                  # the engine still holds sync.version
        sync = engine.sync(policy)     # the next phase
    """

    log_prob_mismatch_limit: float
    """Largest difference from the trainer's log-probabilities, nats per token, that rounding explains; more is an error."""

    def sync(self, policy: Rewriter) -> Sync:
        """Take over the policy's weights (of an adapter-tuned policy: the adapter's) and verify them.

        Raises:
            RuntimeError: what arrived differs from the policy; the engine then holds no version.
        """
        ...

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        expected: str,
        keys: Sequence[int],
        seed: int,
        phase: int,
        max_new_tokens: int,
        progress: SampleProgress = lambda done, total: None,
        ready: Ready = IGNORE_READY,
    ) -> list[list[Completion]]:
        """`n` samples of every prompt at temperature 1, unfiltered.

        Args:
            prompts: Prompt ids.
            n: Samples of each.
            expected: Policy version to sample from.
            keys: A key of each prompt; draws are keyed by (seed, phase, key, sample, position).
            seed, phase: The other keys.
            max_new_tokens: Length limit, tokens.
            progress: Called with (prompts done, of how many).
            ready: Called with the prompts that are finished, in any order, each once.

        Raises:
            StalePolicyError: the engine does not hold `expected`.
        """
        ...
