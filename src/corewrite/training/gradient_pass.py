"""What a gradient pass computes with: the policy itself, or on a GPU a bfloat16 copy of it whose layers are compiled."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from corewrite.rewriter import Rewriter, multiplies_bfloat16
from corewrite.rewriter.compiled_layers import compiled_forward, compiling, layers_of, num_graphs
from corewrite.training.config import Precision, TrainingConfig
from corewrite.training.rows import Row, row_log_probs

_WIDTH = 16
"""Compiled rows are padded to a multiple of so many tokens: the attention kernels then need no copy of the mask."""
_GRAPHS = 4
"""Graphs of a layer that a run makes at most; a further one is an error, not a silent way back to plain execution."""


def resolved_precision(precision: Precision, device: torch.device) -> Precision:
    """`auto` as what it is on this device: bfloat16 on a GPU that multiplies in it, else float32."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" and multiplies_bfloat16(device) else "float32"


class GradientPass:
    """Forward passes whose gradients reach a policy's weights.

    In bfloat16 they run on a copy of the weights that is rounded anew after every optimizer step, not at every product; its
    gradients are added to those of the policy's float32 weights, which alone are stepped. Reference and policy go through the
    same copy and the same graph: equal weights give a rho of exactly 0.
    """

    def __init__(self, policy: Rewriter, config: TrainingConfig, *, compiled: bool | None = None) -> None:
        """Make the copy.

        Args:
            policy: Whose weights get the gradients.
            config: Settings.
            compiled: Whether the copy's layers are compiled; None: on a GPU, unless there is an adapter.
        """
        device = policy.model.device
        self.policy = policy
        self._copy: Rewriter | None = None
        self.compiled = False
        self._graphs = 0
        if resolved_precision(config.precision, device) == "bfloat16":
            self._copy = policy.copy(torch.bfloat16)
            if device.type == "cuda":
                # The backward passes of fused kernels that take a mask add in no fixed order: two runs would part.
                self._copy.model.set_attn_implementation("eager")
            for own, master in zip(self._copy.trained_parameters, policy.trained_parameters, strict=True):
                own.register_post_accumulate_grad_hook(partial(_add_gradient, master))  # type: ignore[no-untyped-call]
            self.compiled = device.type == "cuda" and not policy.has_adapter if compiled is None else compiled
            if self.compiled:
                for layer in layers_of(self._copy.model):
                    forward = compiled_forward(layer, "gradients")
                    # Graphs of runs before, in this process, are shared and do not count.
                    self._graphs = max(self._graphs, _GRAPHS + num_graphs(forward))
                    layer.forward = partial(forward, layer)

    @property
    def rounds(self) -> bool:
        """Whether weights are rounded to bfloat16 to compute with them."""
        return self._copy is not None

    def holding(self, source: Rewriter) -> Rewriter:
        """What computes with the weights that `source` has now: itself, or the copy after it took them over."""
        if self._copy is None:
            return source
        with torch.no_grad():
            torch._foreach_copy_([*self._copy.trained_parameters], [*source.trained_parameters])
        return self._copy

    def log_probs(self, held: Rewriter, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """`row_log_probs` by what `holding` gave.

        Raises:
            RuntimeError: the shapes of the rows take more graphs than a run may compile.
        """
        if not self.compiled:
            return row_log_probs(held, rows)
        with compiling(self._graphs):
            return row_log_probs(held, rows, width_multiple=_WIDTH)

    @contextmanager
    def of_reference(self) -> Iterator[None]:
        """For the reference: without gradients, but by the very kernels of a pass with them."""
        # Kernels are chosen, and graphs compiled, by whether gradients are wanted.
        with torch.set_grad_enabled(self._copy is not None):
            yield


def _add_gradient(master: torch.nn.Parameter, own: Tensor) -> None:
    gradient, own.grad = own.grad, None
    if gradient is None:
        return
    if master.grad is None:
        master.grad = gradient.to(master.dtype)
    else:
        master.grad.add_(gradient)
