"""The folder of a training run; its files are whole whenever the process dies.

run.json                         settings and hashes, a run is resumed only under the same ones; and where it began
state.safetensors                policy, optimizer, reference where it is refreshed, and the cursor: phase, step, sums
phases/000/candidates.parquet    every scored candidate of every instance, written before selection: from then on the truth
phases/000/record.json           what happened

Every file is written beside its place, synced and renamed.
"""

import json
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field, TypeAdapter
from safetensors import SafetensorError, safe_open
from torch import Tensor
from typing_extensions import TypedDict

from corewrite.domain import sha256_json
from corewrite.domain.shown import spelled
from corewrite.storage.durable import PARTIAL, make_folder, make_private, whole_file
from corewrite.storage.json_file import read_object
from corewrite.storage.tensor_file import write_tensors
from corewrite.training import parallel
from corewrite.training.candidate_table import from_table, present_facts, to_table
from corewrite.training.candidates import Scored
from corewrite.training.errors import RESTORE, CheckpointError, NotBitwiseWarning, ResumeError
from corewrite.training.losses import RewardShift
from corewrite.training.optimise import Cursor
from corewrite.training.records import PhaseRecord

_MOST_THREADS = 4096
_SHOWN = 200
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


class _Identity(TypedDict, total=False):
    provenance: dict[str, Any] | None
    environment: dict[str, str]


class _Record(TypedDict, total=False):
    """Facts that the run's report and the warm-up of the learning rate are computed from."""

    optimizer_steps: Annotated[int, Field(ge=0)]
    rollouts: Annotated[int, Field(ge=0)]
    pairs: Annotated[int, Field(ge=0)]
    instances_lost: dict[str, Any]
    seconds: dict[str, float]


class _Shift(TypedDict):
    total: float
    count: int


class _Place(TypedDict):
    step: Annotated[int, Field(ge=0)]
    shift: _Shift
    sums: dict[str, float]
    gradient_norms: dict[str, float]
    clipped: int


class _Checkpoint(TypedDict):
    phase: Annotated[int, Field(ge=0)]
    cursor: _Place
    environment: dict[str, str]


_IDENTITY, _RECORD, _CHECKPOINT = TypeAdapter(_Identity), TypeAdapter(_Record), TypeAdapter(_Checkpoint)


def begun_identity(root: Path) -> dict[str, Any] | None:
    """The identity of the run that was begun in the folder, as its version wrote it; None where there is none.

    Raises:
        ResumeError: what is there is damaged.
    """
    file = root / "run.json"
    return read_object(file, ResumeError, RESTORE) if file.is_file() else None


@dataclass(frozen=True, eq=False)
class State:
    """Where a run stands.

    Attributes:
        phase: The phase to begin or to go on with.
        cursor: Steps done in it.
        tensors: Policy, optimizer and reference by prefixed name.
    """

    phase: int
    cursor: Cursor
    tensors: dict[str, Tensor]


class RunFolder:
    """The folder of one training run."""

    def __init__(self, root: Path, identity: Mapping[str, Any], *, writes: bool = True) -> None:
        """Open or start a run.

        Args:
            root: The folder.
            identity: JSON of all that determines the run (settings, seed, hashes of policy, data, reward). A `code_version` in
                its `provenance` is no part of it: a later version goes on with what an earlier one began.
            writes: Whether this process writes; of several that train together only one does.

        Raises:
            ResumeError: the folder holds a run of another identity.
        """
        self.root = root
        self._writes = writes
        self._begun: dict[str, str] | None = None
        self._versions: tuple[str | None, str | None] = None, None
        if not writes:
            return
        make_folder(root / "phases")
        file = root / "run.json"
        if file.is_file():
            known = dict(read_object(file, ResumeError, RESTORE, _IDENTITY))
            self._begun = known.pop("environment", None)
            (then, known), (now, given) = _code_version_apart(known), _code_version_apart(identity)
            self._versions = then, now
            differing = sorted(k for k in {*known, *given} if sha256_json(known.get(k)) != sha256_json(given.get(k)))
            if differing:
                named = spelled(", ".join(differing))[:_SHOWN]
                raise ResumeError(f"{root} holds a run with another {named}: give a new folder or remove it")
        else:
            self._write(file, json.dumps({**identity, "environment": environment()}, indent=1, sort_keys=True).encode())
        for stray in root.rglob(f"{PARTIAL}*"):  # what was being written when the run was killed
            stray.unlink()

    @property
    def threads(self) -> int | None:
        """How many threads the run began with; None where it begins now, or where a version began it that did not say.

        Raises:
            ResumeError: that is no number of threads.
        """
        if not self._begun or "threads" not in self._begun:
            return None
        said = self._begun["threads"]
        if not (said.isascii() and said.isdigit() and 0 < int(said[:9]) <= _MOST_THREADS):
            raise ResumeError(f"{self.root / 'run.json'} is damaged (threads {said!r:.40}): {RESTORE}")
        return int(said)

    def records(self) -> list[PhaseRecord]:
        """Records of the finished phases, in order.

        Raises:
            ResumeError: one is damaged.
        """
        files = sorted((self.root / "phases").glob("[0-9]*/record.json"))
        return [cast(PhaseRecord, present_facts(read_object(f, ResumeError, RESTORE, _RECORD))) for f in files]

    def optimizer_steps(self, phases: int) -> int:
        """Optimizer steps of the first `phases` phases.

        The first process's count: another one may be on a machine that does not see the run's folder.
        """
        return parallel.from_first(sum(r["optimizer_steps"] for r in self.records()[:phases]))

    def write_record(self, phase: int, record: Mapping[str, object]) -> None:
        """Write down what happened in a phase."""
        self._write(self._phase(phase) / "record.json", json.dumps(dict(record), indent=1, sort_keys=True).encode())

    def scored(self, phase: int) -> Scored | None:
        """The phase's scored candidates, None before they were written.

        Raises:
            ResumeError: the file is damaged.
        """
        file = self._phase(phase) / "candidates.parquet"
        if not file.is_file():
            return None
        try:
            return from_table(pq.read_table(file))
        except (pa.ArrowException, ValueError, LookupError, TypeError, RecursionError) as error:
            raise ResumeError(f"{file} is damaged ({str(error)[:200]}): {RESTORE}") from error

    def write_scored(self, phase: int, scored: Scored) -> None:
        """Write the phase's scored candidates."""
        sink = pa.BufferOutputStream()
        pq.write_table(to_table(scored), sink)
        self._write(self._phase(phase) / "candidates.parquet", sink.getvalue().to_pybytes())

    def state(self) -> State | None:
        """Where the run stands, None before its first checkpoint; warns where resuming will not be bitwise.

        Raises:
            ResumeError: the checkpoint is damaged.
        """
        file = self.root / "state.safetensors"
        if not file.is_file():
            if self._begun and (self.root / "phases/000/candidates.parquet").is_file():
                self._say_if_elsewhere(self._begun)
            return None
        try:
            with safe_open(file, "pt") as opened:
                about = json.loads((opened.metadata() or {})["corewrite"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            _CHECKPOINT.validate_python(about, strict=True)
        except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise ResumeError(f"{file} is damaged ({str(error)[:200]}): {RESTORE}") from error
        self._say_if_elsewhere(about["environment"])
        cursor = about["cursor"]
        return State(about["phase"], Cursor(**{**cursor, "shift": RewardShift(**cursor["shift"])}), tensors)

    def _say_if_elsewhere(self, then: Mapping[str, str]) -> None:
        begun_by, gone_on_by = self._versions
        pairs = {name: (then.get(name), value) for name, value in environment().items()} | {"corewrite": (begun_by, gone_on_by)}
        if differing := [f"{name} {old} then, {new} now" for name, (old, new) in pairs.items() if old != new]:
            warnings.warn(
                f"{self.root} is resumed in another environment ({'; '.join(differing)}): the result is valid, but not bitwise "
                "that of an undisturbed run",
                NotBitwiseWarning,
                stacklevel=3,
            )

    def write_state(self, phase: int, cursor: Cursor, tensors: Mapping[str, Tensor]) -> None:
        """Checkpoint: the phase to go on with, where in it, and the tensors from `pack_state`."""
        self.state_writer(phase, cursor, tensors)()

    def state_writer(self, phase: int, cursor: Cursor, tensors: Mapping[str, Tensor]) -> Callable[[], None]:
        """A function that writes the checkpoint, for another thread: while it runs, nothing may change the tensors."""
        about = json.dumps({"phase": phase, "cursor": asdict(cursor), "environment": environment()})

        def write() -> None:
            if self._writes:
                with _whole(self.root / "state.safetensors") as file:
                    write_tensors(file, tensors, {"corewrite": about})

        return write

    def _phase(self, phase: int) -> Path:
        folder = self.root / "phases" / f"{phase:03d}"
        if self._writes:
            make_folder(folder)
        return folder

    def _write(self, final: Path, content: bytes) -> None:
        if not self._writes:
            return
        with _whole(final) as file:
            make_private(file).write_bytes(content)  # candidates hold users' searches


def _code_version_apart(identity: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The version of the code in an identity's provenance, None where none is; and the identity without it."""
    provenance = dict(identity.get("provenance") or {})
    version = provenance.pop("code_version", None)
    return version, {**identity, "provenance": provenance}


def environment() -> dict[str, str]:
    """What bitwise reproduction depends on beside the run's identity."""
    return {
        "threads": str(torch.get_num_threads()),
        "processes": str(parallel.world()),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **{name: version(name) for name in _LIBRARIES},
    }


@contextmanager
def _whole(final: Path) -> Iterator[Path]:
    """`whole_file`, its errors said in the run's words."""
    try:
        with whole_file(final) as temporary:
            yield temporary
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CheckpointError(
            f"cannot write {final}: {reason}; what was written before is whole: free some space and start again"
        ) from error
