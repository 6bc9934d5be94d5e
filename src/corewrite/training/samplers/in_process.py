"""The default engine: a copy of the policy's weights in this process."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from corewrite.rewriter import Completion, Rewriter, multiplies_bfloat16, sample, weights_checksum
from corewrite.rewriter.compiled_decode import CompiledModel
from corewrite.storage.tensor_file import stream_beside
from corewrite.training.config import Precision
from corewrite.training.samplers.protocol import IGNORE_READY, Ready, SampleProgress, StalePolicyError, Sync

# In bfloat16 about twice the largest difference per token seen between a sampler right after its sync and the trainer: 0.118
# nats over 4,800 samples of a 0.95 M decoder, 0.058 over 384 of a 31 M one. In float32 they were 6e-6 and 2e-6.
_MISMATCH_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 0.25}


def hashed_beside(policy: Rewriter) -> Future[str]:
    """The policy's hash, computed by another thread: its weights must not change before it is there."""

    def policy_hash() -> str:
        with stream_beside(policy.model.device):
            return policy.policy_hash

    pool = ThreadPoolExecutor(1, "corewrite-hash")
    future = pool.submit(policy_hash)
    pool.shutdown(wait=False)
    return future


class InProcessEngine:
    """Samples from weights of its own, so that training may move on while it samples (a `SamplingEngine`)."""

    def __init__(self, policy: Rewriter, precision: Precision = "auto", *, compiled: bool | None = None) -> None:
        """Make room for the policy's weights; they arrive with the first `sync`.

        Args:
            policy: A policy of the same shape.
            precision: float32, bfloat16, or auto: bfloat16 where the processor multiplies in it and the weights bear it.
            compiled: Whether the layers are compiled; None: on a GPU, unless there is an adapter or prefixes cannot be shared.
        """
        may = policy.paths.shared_prefix and not policy.has_adapter
        self._compiles = may and (policy.model.device.type == "cuda" if compiled is None else compiled)
        fast = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16(policy.model.device))
        self._dtype = torch.bfloat16 if fast else torch.float32
        self._may_change = fast and precision == "auto"
        self._make_room(policy, self._dtype)
        self._version: str | None = None

    def sync(self, policy: Rewriter) -> Sync:
        """See `SamplingEngine.sync`: only the trained weights travel; the copy is compared weight by weight."""
        if self._held != self._dtype:  # float32 was for one phase
            self._make_room(policy, self._dtype)
        return self._take(policy)

    def sync_precisely(self, policy: Rewriter) -> Sync | None:
        """Sync again, in float32 until the next `sync`: for weights that bfloat16 rounds too far. None: it may not, or is so.

        For one phase only, so that a run that is resumed samples as one that was not cut off.
        """
        if not self._may_change or self._held == torch.float32:
            return None
        self._make_room(policy, torch.float32)
        return self._take(policy)

    def _make_room(self, policy: Rewriter, dtype: torch.dtype) -> None:
        self._own, self._held = policy.copy(torch.bfloat16 if dtype == torch.bfloat16 else None), dtype
        self._compiled = CompiledModel(self._own.model) if self._compiles else None
        self.log_prob_mismatch_limit = _MISMATCH_LIMITS[dtype]

    def _take(self, policy: Rewriter) -> Sync:
        self._version = None
        sent, own = policy.trained_state(), self._own.trained_state()
        for name, value in sent.items():
            own[name].copy_(value)
        differ = [(own[name] != value.to(own[name].dtype)).any() for name, value in sent.items()]
        if bool(torch.stack(differ).any()):  # waits for the device once
            raise RuntimeError("the sampler's weights differ from the policy's after a sync (are they finite?)")
        self._version = weights_checksum(sent)
        size = sum(v.numel() * v.element_size() for v in sent.values())
        return Sync(self._version, size, hashed_beside(policy))

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
        """See `SamplingEngine.sample`."""
        if self._version != expected:
            raise StalePolicyError(f"the sampler holds policy {self._version or 'none'}, not {expected}: sync it first")
        return sample(
            self._own,
            prompts,
            n,
            keys=keys,
            seed=seed,
            phase=phase,
            max_new_tokens=max_new_tokens,
            progress=progress,
            ready=ready,
            compiled=self._compiled,
        )
