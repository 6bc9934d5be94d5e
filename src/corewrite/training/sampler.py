"""The sampler: a copy of the policy's weights, synced once per phase."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from corewrite.domain import TrainingInstance, text_key
from corewrite.rewriter import Rewrite, Rewriter, sample


@dataclass(frozen=True)
class Rollouts:
    """Samples of a batch of instances.

    Attributes:
        policy_version: Hash of the policy that made them.
        rewrites: N samples per instance.
    """

    policy_version: str
    rewrites: list[list[Rewrite]]


class InProcessSampler:
    """Samples from weights of its own, so that training may move on while it samples.

    Ordering contract: `sync` before `sample`; whoever samples says which version is expected.

        version = sampler.sync(policy)
        rollouts = sampler.sample(instances, n, expected=version, ...)
        train(policy)            # the sampler still holds `version`
        version = sampler.sync(policy)
    """

    def __init__(self, policy: Rewriter) -> None:
        self._own = policy.copy()
        self._version: str | None = None

    def sync(self, policy: Rewriter) -> str:
        """Take over the policy's weights, verified by their hash, and return that version.

        Raises:
            RuntimeError: the copy differs from the policy.
        """
        self._version = None
        self._own.model.load_state_dict(policy.model.state_dict())
        version = policy.policy_hash
        if self._own.policy_hash != version:
            raise RuntimeError("the sampler's weights differ from the policy's after a sync")
        self._version = version
        return version

    def sample(
        self,
        instances: Sequence[TrainingInstance],
        n: int,
        *,
        expected: str,
        seed: int,
        phase: int,
        max_new_tokens: int,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Rollouts:
        """`n` samples per instance, every draw keyed by (seed, phase, instance, sample, position).

        Raises:
            RuntimeError: the sampler does not hold the policy version `expected`.
        """
        if self._version != expected:
            raise RuntimeError(f"the sampler holds policy {self._version or 'none'}, not {expected}: sync it first")
        rewrites = sample(
            self._own, [x.query for x in instances], n, keys=[text_key(x.instance_id) for x in instances], seed=seed,
            phase=phase, max_new_tokens=max_new_tokens, progress=progress,
        )  # fmt: skip
        return Rollouts(expected, rewrites)
