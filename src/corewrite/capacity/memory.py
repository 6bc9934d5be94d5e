"""Memory that a rewriter takes on a processor where it is trained and served, before anything is.

Copies of the weights are counted as the code makes them. What a pass keeps beside them is found by running the real pass on
tensors that have a shape and no content, and adding up what is alive at the same time: the largest micro-batch, at no cost.
"""

import warnings
import weakref
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from corewrite.domain.extras import missing_modules
from corewrite.rewriter import Rewriter, multiplies_bfloat16, response_log_probs, with_adapter
from corewrite.training import TrainingConfig
from corewrite.training.config import LoraSettings

WARM_START_BATCH = 64
"""Examples of an optimizer step of `fine_tune`."""
_META = "meta"


@dataclass(frozen=True)
class MemoryPrediction:
    """Bytes beside what the process takes without a model; float32 weights, on a processor.

    Attributes:
        weights: The model once, as a server holds it.
        serving: That, and what one rewrite at a time takes.
        warm_start: Fine-tuning all weights on batches of `WARM_START_BATCH` examples.
        training: The phase loop, all weights.
        training_lora: The phase loop with an adapter of `LoraSettings`; None: peft is not installed.
        example_tokens: Tokens of a prompt and its rewrite that the above holds for.
        tokens_per_micro_batch: And padded tokens of a micro-batch of the phase loop.
        bytes_per_token, bytes_per_token_lora: By which the phase loop grows with a token of the micro-batch.
    """

    weights: int
    serving: int
    warm_start: int
    training: int
    training_lora: int | None
    example_tokens: int
    tokens_per_micro_batch: int
    bytes_per_token: int
    bytes_per_token_lora: int | None

    def tokens_that_fit(self, room: int) -> int:
        """Tokens of a micro-batch with which the phase loop, all weights, fits into `room` bytes; at least 0."""
        fixed = self.training - self.tokens_per_micro_batch * self.bytes_per_token
        return max(0, (room - fixed) // max(1, self.bytes_per_token))


def predict_memory(rewriter: Rewriter, config: TrainingConfig, example_tokens: int) -> MemoryPrediction:
    """Predict memory; nothing is trained, and the model is not changed.

    Args:
        rewriter: The policy, without an adapter.
        config: Settings of the training.
        example_tokens: Mean tokens of a prompt and its rewrite, at least 4.

    Raises:
        ValueError: `example_tokens` is below 4.
    """
    if example_tokens < 4:
        raise ValueError(f"example_tokens must be at least 4, not {example_tokens}: a prompt and a rewrite with its end")
    device = next(rewriter.model.parameters()).device
    rounds = multiplies_bfloat16(device)
    weights = _bytes_of(rewriter.model)
    sampler = weights // 2 if rounds else weights
    meta = Rewriter(_on_meta(rewriter.model), rewriter.tokenizer, rewriter.template, rewriter.paths)
    serving = weights + _peak(lambda: _rewrite_once(meta, example_tokens))
    # Weights, their gradients within the pass, two moments; products take copies rounded to bfloat16, made once a step.
    autocast = weights // 2 if rounds else 0
    warm_start = 3 * weights + autocast + _peak(lambda: _fine_tuning_step(meta, example_tokens), rounded=rounds)
    # The start that is kept for the gate, the policy, its reference, two moments, and the sampler's copy.
    passes = _two_sizes(meta, config, example_tokens)
    training = 5 * weights + sampler + passes[0]
    adapted = _adapted(meta)
    lora: tuple[int, int] | None = None
    if adapted is not None:
        trained = sum(p.numel() * p.element_size() for p in adapted.trained_parameters)
        size, slope = _two_sizes(adapted, config, example_tokens)
        # The start, the frozen weights, the sampler's copy; of the adapter also the reference and two moments.
        lora = 2 * weights + sampler + 5 * trained + size, slope
    return MemoryPrediction(
        weights,
        serving,
        warm_start,
        training,
        None if lora is None else lora[0],
        example_tokens,
        config.tokens_per_micro_batch,
        passes[1],
        None if lora is None else lora[1],
    )


def _bytes_of(model: Any) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _on_meta(model: Any) -> Any:
    """The model without its content; shared weights stay shared."""
    made = {id(p): torch.nn.Parameter(torch.empty_like(p, device=_META), p.requires_grad) for p in model.parameters()}
    twin = deepcopy(model, dict(made))  # the memo: content is not copied, not for a moment
    return twin.to(_META)  # buffers


def _adapted(meta: Rewriter) -> Rewriter | None:
    if missing_modules("lora"):
        return None
    lora = LoraSettings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of peft, about what it asks of transformers
        adapted = with_adapter(meta, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, seed=0)
    adapted.model.to(_META)
    return Rewriter(adapted.model, meta.tokenizer, meta.template, meta.paths)


def _rewrite_of(example_tokens: int) -> int:
    """Tokens of the rewrite in an example of so many: about a quarter, its end included."""
    return max(2, example_tokens // 4)


def _two_sizes(policy: Rewriter, config: TrainingConfig, example_tokens: int) -> tuple[int, int]:
    """Bytes of a step of the phase loop beside the weights, its gradients included; and by how many a token grows it."""
    rewrite = _rewrite_of(example_tokens)
    prompt, responses = example_tokens - rewrite, 2 * config.k
    packed = policy.paths.packed
    row = prompt + responses * (rewrite - 1) if packed else responses * (prompt + rewrite - 1)
    found = []
    sizes = [max(2, config.tokens_per_micro_batch // row), max(1, config.tokens_per_micro_batch // row // 2)]
    for rows in sizes:
        ids, answers = [[0] * prompt] * rows, [[[0] * rewrite] * responses] * rows

        def step(ids: list[list[int]] = ids, answers: list[list[list[int]]] = answers) -> None:
            # Twice: from the second micro-batch on there are gradients to add to.
            for _ in range(2):
                policy.log_probs(ids, answers).sum().backward()  # type: ignore[no-untyped-call]

        found.append(_peak(step))
        policy.model.zero_grad(set_to_none=True)
    return found[0], round((found[0] - found[1]) / ((sizes[0] - sizes[1]) * row))


def _fine_tuning_step(policy: Rewriter, example_tokens: int) -> None:
    rewrite = _rewrite_of(example_tokens)
    prompts, targets = [[[0] * n] * WARM_START_BATCH for n in (example_tokens - rewrite, rewrite)]
    response_log_probs(policy.model, prompts, targets).sum().backward()  # type: ignore[no-untyped-call]
    policy.model.zero_grad(set_to_none=True)


@torch.no_grad()
def _rewrite_once(policy: Rewriter, example_tokens: int) -> None:
    policy.model(input_ids=torch.zeros(1, example_tokens, dtype=torch.long, device=_META), use_cache=True)


def _peak(run: Callable[[], None], *, rounded: bool = False) -> int:
    """Largest bytes of tensors, made within `run`, that were alive at the same time.

    Args:
        run: Computes on tensors without content.
        rounded: Whether products are computed in bfloat16, as autocast does.
    """
    alive = _Alive()
    with _AsOnAProcessor(rounded), alive:
        run()
    return alive.peak


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of tensors as they come and go, in the backward pass too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage(), before)
        return out

    def _add(self, storage: Any, before: set[int]) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known or key in before:  # a view, or in place
            return

        def gone(_: Any) -> None:
            self._known.pop(key, None)
            self.now -= size

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


class _AsOnAProcessor(TorchFunctionMode):
    """What a processor does and tensors without content do not: fused attention, and products in bfloat16 where it rounds."""

    def __init__(self, rounded: bool) -> None:
        super().__init__()
        self._rounded = rounded

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is Tensor.__bool__:
            return True  # asked of positions: whether no row of a batch begins in its middle
        if function is torch.nn.functional.scaled_dot_product_attention:
            query, key, value = (x.to(torch.bfloat16) if self._rounded else x for x in args[:3])
            return _FusedAttention.apply(query, key, value)  # type: ignore[no-untyped-call]
        if function is torch.nn.functional.linear and self._rounded:
            # Rounded weights are counted by whoever calls: made once a step, not at every product.
            with torch._C._DisableTorchDispatch():
                rest = [x if x is None else x.to(torch.bfloat16) for x in args[1:]]
            linear: Any = function
            return linear(args[0].to(torch.bfloat16), *rest, **kwargs)
        if function in _PRODUCTS and self._rounded:
            args = tuple(x.to(torch.bfloat16) for x in args)
        return function(*args, **kwargs)


_PRODUCTS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm)


class _FusedAttention(torch.autograd.Function):
    """Keeps what fused attention keeps: its inputs, its output and a number per head and token."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(x) for x in ctx.saved_tensors[:3])
