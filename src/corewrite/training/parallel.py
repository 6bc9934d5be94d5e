"""Data parallelism: what each process does where `torch.distributed` runs, and all of it where it does not.

Started by `torchrun`, every process holds the whole policy; micro-batches and prompts are dealt out, gradients added up.
The loss is divided by the step's number of pairs over all processes, so unequal shares add up to the same step.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 writes the run's files."""
    return dist.get_rank() if world() > 1 else 0


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's share of `items`."""
    return items[rank() :: world()]


def gather(own: Sequence[T]) -> list[T]:
    """The items whose shares the processes bring, in their order."""
    if world() == 1:
        return list(own)
    parts: list[Any] = [None] * world()
    dist.all_gather_object(parts, list(own))
    out: list[Any] = [None] * sum(map(len, parts))
    for number, part in enumerate(parts):
        out[number :: world()] = part
    return out


def from_first(value: T) -> T:
    """The first process's `value`."""
    if world() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box)
    return box[0]  # type: ignore[no-any-return]


def add_up(gradients: Sequence[Tensor]) -> None:
    """Replace each gradient by its sum over the processes, in one message."""
    if world() == 1:
        return
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def total(values: Tensor) -> Tensor:
    """Sum of `values` over the processes."""
    if world() > 1:
        dist.all_reduce(values)
    return values


def sum_over_processes(sums: dict[str, float]) -> dict[str, float]:
    """Sums by name over the processes."""
    # NCCL adds on its GPU only.
    device = "cuda" if world() > 1 and dist.get_backend() == "nccl" else "cpu"
    added = total(torch.tensor(list(sums.values()), dtype=torch.float64, device=device))
    return dict(zip(sums, added.tolist(), strict=True))
