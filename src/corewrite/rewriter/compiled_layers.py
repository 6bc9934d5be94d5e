"""A model's layers under `torch.compile`: one graph for all of them, few for all shapes of their inputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FunctionType
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer


def layers_of(model: Any) -> list[Any]:
    """The model's layers, first to last."""
    return [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]


def compiled_forward(layer: Any, purpose: str) -> Callable[..., Any]:
    """The layer's forward pass, compiled, as a function of the layer and its arguments.

    Sizes of inputs are dynamic: a graph serves any number of rows of any length. Layers of equal modules share their graphs.

    Args:
        layer: One of `layers_of`.
        purpose: What it is used for: graphs of another purpose do not count against its limit.
    """
    kind: Any = type(layer)
    weight = next(layer.parameters())
    return _compiled(kind, str(layer), weight.dtype, weight.device, purpose)


@lru_cache
def _compiled(kind: type, _modules: str, _dtype: torch.dtype, _device: torch.device, _purpose: str) -> Callable[..., Any]:
    return torch.compile(_of_its_own(kind.forward), fullgraph=True, dynamic=True)  # type: ignore[attr-defined]


def num_graphs(forward: Any) -> int:
    """Graphs that a function of `compiled_forward` has by now, those of earlier models of this process included."""
    from torch._dynamo.eval_frame import _debug_get_cache_entry_list

    return len(_debug_get_cache_entry_list(forward._torchdynamo_orig_callable))


def _of_its_own(function: Any) -> Callable[..., Any]:
    """The same function under another code object: graphs are kept and counted by it, and other models use it too."""
    code = function.__code__.replace(co_name=f"compiled_{function.__code__.co_name}")
    twin = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


@contextmanager
def compiling(graphs: int) -> Iterator[None]:
    """Within it, a function that takes more than so many graphs is an error, not a silent way back to plain execution."""
    import torch._dynamo.config as limits  # what compiles takes a second to import
    import torch.fx.experimental._config as shapes

    with (
        limits.patch(recompile_limit=graphs, fail_on_recompile_limit_hit=True),
        # Two sizes that are equal once need not be so again.
        shapes.patch(use_duck_shape=False),  # type: ignore[attr-defined]
    ):
        yield
