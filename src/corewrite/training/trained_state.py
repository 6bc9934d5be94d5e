"""Policy, optimizer and reference as named tensors, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from corewrite.rewriter import Rewriter
from corewrite.training.errors import RESTORE, ResumeError


def pack_state(policy: Rewriter, optimizer: torch.optim.Optimizer, reference: Rewriter | None) -> dict[str, Tensor]:
    """Trained weights, optimizer and reference as named tensors; `reference` is None where the first one stays."""
    tensors = {f"policy.{name}": value for name, value in policy.trained_state().items()}
    if reference is not None:
        tensors |= {f"reference.{name}": value for name, value in reference.trained_state().items()}
    for index, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
    return {name: value.contiguous() for name, value in tensors.items()}


def unpack_state(
    tensors: Mapping[str, Tensor], policy: Rewriter, optimizer: torch.optim.Optimizer, reference: Rewriter | None
) -> None:
    """Put back what `pack_state` took.

    Raises:
        ResumeError: it is not of this policy and optimizer.
    """
    parts: dict[str, dict[str, Tensor]] = {"policy": {}, "reference": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise ResumeError(f"the checkpoint holds {name!r:.80}, which is no part of a training: {RESTORE}")
        parts[part][rest] = value
    load_trained(policy, parts["policy"])
    if reference is not None:
        load_trained(reference, parts["reference"])
    trained = list(policy.trained_state().values())
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        index, _, key = name.partition(".")
        place = int(index) if index.isascii() and index.isdigit() and len(index) < 9 else len(trained)
        if place >= len(trained) or (value.dim() and value.shape != trained[place].shape):
            raise ResumeError(f"the checkpoint's optimizer state {name!r:.80} is of no trained weight: {RESTORE}")
        state.setdefault(place, {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_trained(policy: Rewriter, state: Mapping[str, Tensor]) -> None:
    """Set the trained weights of `policy` to those of `state`.

    Raises:
        ResumeError: they are of other names or shapes.
    """
    own = policy.trained_state()
    if own.keys() != state.keys():
        raise ResumeError(f"the weights differ in {sorted(own.keys() ^ state.keys())[:3]}: is it another model?")
    if differing := [name for name in own if own[name].shape != state[name].shape]:
        raise ResumeError(f"the weights {sorted(differing)[:3]} have other shapes: is it another model?")
    for name, value in state.items():
        own[name].copy_(value)
