"""Files of tensors: byte for byte those of the safetensors library, whatever the size of a piece."""

import resource

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from corewrite.storage import tensor_file
from corewrite.storage.tensor_file import bytes_of, write_tensors

TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool]


@pytest.mark.parametrize("chunk", [1, 7, 64, 32 << 20])
@given(
    shapes=st.lists(st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 5), max_size=3)), max_size=6),
    metadata=st.dictionaries(st.just("about"), st.text(max_size=9)),
)
def test_the_bytes_are_those_of_the_library(tmp_path_factory, chunk, shapes, metadata):
    folder = tmp_path_factory.mktemp("files")
    tensors = {
        f"layer.{i}ü": torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(i)).to(dtype)
        for i, (dtype, shape) in enumerate(shapes)
    }
    save_file(tensors, folder / "theirs", metadata or None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_file, "_CHUNK", chunk)
        write_tensors(folder / "ours", tensors, metadata)
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()


@pytest.mark.parametrize("shape", [(), (0,), (3, 5)])
def test_bytes_are_those_of_memory(shape):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert b"".join(bytes(piece) for piece in bytes_of(tensor)) == tensor.numpy().tobytes()
    turned = torch.arange(6.0).view(2, 3).t()
    assert b"".join(bytes(piece) for piece in bytes_of(turned)) == turned.contiguous().numpy().tobytes()


def test_a_file_that_was_longer_is_cut(tmp_path):
    write_tensors(tmp_path / "a", {"x": torch.arange(1000)}, {})
    write_tensors(tmp_path / "a", {"x": torch.arange(3)}, {})
    assert torch.equal(load_file(tmp_path / "a")["x"], torch.arange(3))


def test_a_full_disk_is_an_error(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write_tensors(tmp_path / "a", {"x": torch.zeros(10_000), "y": torch.ones(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_type_that_the_format_lacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"x is of type torch\.complex64, which a safetensors file cannot hold"):
        write_tensors(tmp_path / "a", {"x": torch.zeros(2, dtype=torch.complex64)}, {})
