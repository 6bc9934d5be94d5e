"""Bytes of tensors of any device: read piece by piece, and written to a safetensors file as fast as the disk takes them."""

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import local

import torch
from torch import Tensor

_CHUNK = 32 << 20
_WRITERS = 4
_NAMES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The format's names of types, in the order in which it puts them."""


@dataclass(frozen=True)
class _Piece:
    data: Tensor
    """Bytes, at most `_CHUNK` of them."""
    offset: int
    """Where in the file."""


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """What `safetensors.torch.save_file` writes, byte for byte, by several threads and without a copy of the whole.

    Tensors of a GPU are read on streams of this function's own, beside whatever else runs there. Nothing may change them
    meanwhile.

    Args:
        file: Written over where it is there.
        tensors: By name, each of its own memory and contiguous.
        metadata: Text by name.

    Raises:
        OSError: the file could not be written.
        ValueError: a tensor's type is none of safetensors'.
    """
    header, pieces = _layout(tensors, metadata)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        _write_all(descriptor, header, 0)
        staging = local()
        done = {device: _recorded(device) for device in {t.device for t in tensors.values()} if device.type == "cuda"}
        with ThreadPoolExecutor(_WRITERS, "corewrite-write") as pool:
            for _ in pool.map(lambda piece: _write(descriptor, piece, staging, done.get(piece.data.device)), pieces):
                pass
    finally:
        os.close(descriptor)


def _layout(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, list[_Piece]]:
    about: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    if unknown := [name for name, tensor in tensors.items() if tensor.dtype not in _NAMES]:
        raise ValueError(f"{unknown[0]} is of type {tensors[unknown[0]].dtype}, which a safetensors file cannot hold")
    order = list(_NAMES)
    flat, start = [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (order.index(item[1].dtype), item[0])):
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        offsets = [start, start + len(data)]
        about[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        flat.append((data, start))
        start += len(data)
    text = json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    pieces = [
        _Piece(data[i : i + _CHUNK], len(header) + offset + i) for data, offset in flat for i in range(0, len(data), _CHUNK)
    ]
    return header, pieces


def _recorded(device: torch.device) -> torch.cuda.Event:
    """What the device was told before has to be done before its tensors are read."""
    with torch.cuda.device(device):
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()  # type: ignore[no-untyped-call]
        return event


def _write(descriptor: int, piece: _Piece, staging: local, before: torch.cuda.Event | None) -> None:
    if before is None:
        _write_all(descriptor, piece.data.numpy().data, piece.offset)
        return
    if not hasattr(staging, "buffer"):
        staging.buffer = torch.empty(_CHUNK, dtype=torch.uint8, pin_memory=True)
        staging.stream = torch.cuda.Stream(piece.data.device)  # type: ignore[no-untyped-call]
        staging.stream.wait_event(before)
    with torch.cuda.stream(staging.stream):
        buffer = staging.buffer[: len(piece.data)]
        buffer.copy_(piece.data, non_blocking=True)
    staging.stream.synchronize()
    _write_all(descriptor, buffer.numpy().data, piece.offset)


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def bytes_of(tensor: Tensor) -> Iterator[memoryview]:
    """The tensor's bytes, piece by piece; a piece is valid until the next is asked for.

    From a GPU the next piece is on its way while the caller works on one.
    """
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if data.device.type != "cuda":
        yield data.cpu().numpy().data
        return
    pieces = torch.split(data, _CHUNK)
    buffers = [torch.empty(len(pieces[0]), dtype=torch.uint8, pin_memory=True) for _ in pieces[:2]]
    arrived = [torch.cuda.Event() for _ in pieces[:2]]  # type: ignore[no-untyped-call]

    def fetch(number: int) -> None:
        buffers[number % 2][: len(pieces[number])].copy_(pieces[number], non_blocking=True)
        arrived[number % 2].record()

    fetch(0)
    for number, piece in enumerate(pieces):
        arrived[number % 2].synchronize()
        if number + 1 < len(pieces):
            fetch(number + 1)
        yield buffers[number % 2][: len(piece)].numpy().data


@contextmanager
def stream_beside(device: torch.device) -> Iterator[None]:
    """On a GPU, work of this thread on a stream of its own that begins after what the device was told so far."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_event(_recorded(device))  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        yield
