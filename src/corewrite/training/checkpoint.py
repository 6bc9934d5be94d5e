"""A run's folder: one whole phase per subfolder, made visible by a single rename.

run.json                     settings and hashes; a run is resumed only under the same ones
phases/000/record.json       what happened
phases/000/candidates.parquet  every scored candidate of every instance, token ids included
phases/000/state.safetensors   policy, reference where it is refreshed, optimizer (only the last phase keeps it)
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from corewrite.domain import TrainingInstance, sha256_json
from corewrite.registry.durable import sync, sync_tree
from corewrite.training.pairs import Candidate

_STATE = "state.safetensors"


class ResumeError(RuntimeError):
    """A run folder that cannot be continued with what was given."""


@dataclass(frozen=True, eq=False)
class PhaseState:
    """What the next phase starts from.

    Attributes:
        record: The phase's record.
        tensors: Policy, optimizer and reference by prefixed name.
    """

    record: dict[str, Any]
    tensors: dict[str, Tensor]


class RunFolder:
    """The folder of one training run."""

    def __init__(self, root: Path, identity: Mapping[str, Any]) -> None:
        """Open or start a run.

        Args:
            root: The folder.
            identity: JSON of all that determines the run (settings, seed, hashes of policy, data, reward).

        Raises:
            ResumeError: the folder holds a run of another identity.
        """
        self.root = root
        (root / "phases").mkdir(parents=True, exist_ok=True)
        file = root / "run.json"
        if file.is_file():
            known = json.loads(file.read_text("utf-8"))
            differing = sorted(k for k in {*known, *identity} if sha256_json(known.get(k)) != sha256_json(identity.get(k)))
            if differing:
                raise ResumeError(f"{root} holds a run with another {', '.join(differing)}: give a new folder or remove it")
        else:
            _write(file, json.dumps(dict(identity), indent=1, sort_keys=True).encode())
        for stray in (root / "phases").glob(".*"):  # a phase that was being written when the run was killed
            shutil.rmtree(stray)

    def records(self) -> list[dict[str, Any]]:
        """Records of the whole phases, in order."""
        return [json.loads((folder / "record.json").read_text("utf-8")) for folder in self._whole()]

    def last(self) -> PhaseState | None:
        """The last whole phase with its state, None before the first."""
        whole = self._whole()
        if not whole:
            return None
        return PhaseState(self.records()[-1], load_file(whole[-1] / _STATE))

    def write_phase(
        self,
        phase: int,
        record: Mapping[str, Any],
        instances: Sequence[TrainingInstance],
        candidates: Sequence[Sequence[Candidate]],
        tensors: Mapping[str, Tensor],
    ) -> None:
        """Write a phase: all of it or nothing, whenever the process dies."""
        final = self.root / "phases" / f"{phase:03d}"
        temporary = final.with_name(f".{phase:03d}")
        temporary.mkdir()
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary / _STATE)
        pq.write_table(_table(instances, candidates), temporary / "candidates.parquet")
        (temporary / "record.json").write_text(json.dumps(dict(record), indent=1, sort_keys=True), "utf-8")
        sync_tree(temporary)
        temporary.rename(final)
        sync(final.parent)
        for older in self._whole()[:-1]:
            (older / _STATE).unlink(missing_ok=True)

    def _whole(self) -> list[Path]:
        return sorted(f.parent for f in (self.root / "phases").glob("[0-9]*/record.json"))


def pack_state(model: Any, optimizer: torch.optim.Optimizer, reference: Any) -> dict[str, Tensor]:
    """Policy, optimizer and reference as named tensors; `reference` may be None where the first one stays."""
    tensors = {f"policy.{name}": value for name, value in _weights(model).items()}
    if reference is not None:
        tensors |= {f"reference.{name}": value for name, value in _weights(reference).items()}
    for index, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
    # Tied weights share memory, which a safetensors file cannot.
    return {name: value.detach().clone() for name, value in tensors.items()}


def unpack_state(tensors: Mapping[str, Tensor], model: Any, optimizer: torch.optim.Optimizer, reference: Any) -> None:
    """Put back what `pack_state` took."""
    parts: dict[str, dict[str, Tensor]] = {"policy": {}, "reference": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = value
    model.load_state_dict(parts["policy"])
    if reference is not None:
        reference.load_state_dict(parts["reference"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _weights(model: Any) -> dict[str, Tensor]:
    return dict(model.state_dict())


def _table(instances: Sequence[TrainingInstance], candidates: Sequence[Sequence[Candidate]]) -> pa.Table:
    rows = [(x.instance_id, c) for x, row in zip(instances, candidates, strict=True) for c in row]
    return pa.table(
        {
            "instance_id": [i for i, _ in rows],
            "text": [c.text for _, c in rows],
            "log_reward": [c.log_reward for _, c in rows],
            "ended": [c.ended for _, c in rows],
            "malformed": [c.malformed for _, c in rows],
            "identity": [c.identity for _, c in rows],
            "token_ids": pa.array([list(c.token_ids) for _, c in rows], pa.list_(pa.int64())),
        }
    )


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}")
    temporary.write_bytes(content)
    sync(temporary)
    temporary.rename(file)
