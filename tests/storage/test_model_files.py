"""What a model folder must not hold: code, pickles, and anything by which a library would read outside of the folder."""

import json
import pickle
from pathlib import Path

import pytest

from corewrite.storage.model_files import UnsafeModelError, check_model_file

SHARDS = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}


def folder_of(tmp_path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def check(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            check_model_file(path)


def index(shards: object) -> bytes:
    return json.dumps({"metadata": {"total_size": 2}, "weight_map": shards}).encode()


def test_a_plain_sharded_model_is_taken(tmp_path: Path) -> None:
    files = dict.fromkeys(SHARDS.values(), b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    check(folder_of(tmp_path, {**files, "model.safetensors.index.json": index(SHARDS), "config.json": b"{}"}))


@pytest.mark.parametrize(
    "value",
    [
        "../elsewhere.safetensors", "/elsewhere.safetensors", "sub/there.safetensors", "..\\elsewhere.safetensors",
        "C:\\elsewhere.safetensors", "./there.safetensors", ".hidden.safetensors", "there.bin", "there.safetensors\n",
        "there.safetensors.bin", "missing.safetensors", "linked.safetensors", "", "x" * 300 + ".safetensors",
        7, None, ["there.safetensors"],
    ],
)  # fmt: skip
def test_an_index_names_weights_of_its_own_folder_only(tmp_path: Path, value: object) -> None:
    (tmp_path / "elsewhere.safetensors").write_bytes(b"1")
    folder = tmp_path / "model"
    files = {"there.safetensors": b"1", "there.bin": b"1", ".hidden.safetensors": b"1", "sub/there.safetensors": b"1"}
    folder_of(folder, {**files, "model.safetensors.index.json": index({**{"a": "there.safetensors"}, "b": value})})
    (folder / "linked.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(UnsafeModelError, match=r"index\.json maps 'b' to"):
        check_model_file(folder / "model.safetensors.index.json")


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "pytorch_model.bin.index.json", "Other.INDEX.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", index([]), index(None), b"[" * 100_000, b'{"weight_map": {"a": 9}'])
def test_an_index_that_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(UnsafeModelError, match=r"(?i)index\.json"):
        check(folder_of(tmp_path, {name: content}))


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": {"AutoConfig": "evil.Config"}},
        {"text_config": [{"auto_map": {"AutoModel": "evil.M"}}]},
        {"custom_pipelines": {"x": {"impl": "evil.P"}}},
        {"attn_implementation": "evil/kernel"},
        {"_attn_implementation": "paged|evil/kernel@main:f"},
        {"text_config": {"_attn_implementation": {"": "eager", "vision": "evil/kernel"}}},
        {"experts_implementation": "evil/kernel"},
    ],
)
def test_a_configuration_that_asks_for_code_is_refused(tmp_path: Path, config: object) -> None:
    with pytest.raises(UnsafeModelError, match="asks for code of its own"):
        check(folder_of(tmp_path, {"config.json": json.dumps(config).encode()}))


@pytest.mark.parametrize("opened", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [300, 900, 980, 100_000])
def test_a_deep_configuration_is_no_crash(tmp_path: Path, opened: bytes, depth: int) -> None:
    closed = b"]" if opened == b"[" else b"}"
    folder_of(tmp_path, {"config.json": opened * depth + b"1" + closed * depth})
    try:
        check(tmp_path)
    except UnsafeModelError as error:
        assert "is not JSON" in str(error)


@pytest.mark.parametrize(
    "config", [{"attn_implementation": "sdpa"}, {"_attn_implementation": {"": "eager"}}, {"auto_map": None}]
)
def test_a_configuration_that_names_what_the_library_has_is_taken(tmp_path: Path, config: object) -> None:
    check(folder_of(tmp_path, {"config.json": json.dumps(config).encode()}))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("config.json", {"transformers_weights": "../w.safetensors"}),
        ("config.json", {"transformers_weights": "sub/w.safetensors"}),
        ("config.json", {"transformers_weights": "missing.safetensors"}),
        ("config.json", {"transformers_weights": "adapter_model.bin"}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.json", "../x/tokenizer.4.0.json"]}),
        ("tokenizer_config.json", {"fast_tokenizer_files": {"tokenizer.json": 1}}),
    ],
)
def test_a_configuration_that_names_files_elsewhere_is_refused(tmp_path: Path, name: str, config: object) -> None:
    files = {"w.safetensors": b"1", "adapter_model.bin": b"1", "tokenizer.json": b"{}", "sub/w.safetensors": b"1"}
    folder = folder_of(tmp_path / "model", {**files, name: json.dumps(config).encode()})
    (tmp_path / "w.safetensors").write_bytes(b"1")
    with pytest.raises(UnsafeModelError, match=r"(transformers_weights|fast_tokenizer_files)"):
        check_model_file(folder / name)


def test_weights_named_by_the_configuration_may_lie_in_the_folder(tmp_path: Path) -> None:
    check(folder_of(tmp_path, {"w.safetensors": b"1", "config.json": b'{"transformers_weights": "w.safetensors"}'}))


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 10**9}, {"n_layer": 10**9}, {"num_layers": 10**4000}, {"decoder_layers": 3_000},
        {"vision_config": {"num_hidden_layers": 10**9}}, {"parts": [{"depth": 10**9}]}, {"depths": [2, 10**9]},
        {"num_local_experts": 10**7}, {"num_labels": 10**8}, {"num_hidden_layers": 2_001},
    ],
)  # fmt: skip
def test_parts_that_have_no_weights_are_not_built(tmp_path: Path, config: object) -> None:
    """A billion layers had taken two gigabytes before a time-out ended them."""
    with pytest.raises(UnsafeModelError, match="there are 1 weights"):
        check(folder_of(tmp_path, {"m.safetensors": tensors(1), "config.json": json.dumps(config).encode()}))


def tensors(count: int) -> bytes:
    header = json.dumps({f"w{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(count)}).encode()
    return len(header).to_bytes(8, "little") + header


def test_as_many_parts_as_there_are_weights_for(tmp_path: Path) -> None:
    config = {
        "num_hidden_layers": 3_000, "vocab_size": 10**6, "max_position_embeddings": 10**7, "block_size": 10**5,
        "rope_theta": 10**9, "layer_norm_eps": 1e-5, "layer_types": ["full"] * 9, "num_key_value_heads": 8,
    }  # fmt: skip
    check(folder_of(tmp_path, {"m.safetensors": tensors(3_000), "config.json": json.dumps(config).encode()}))
    for broken in (b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"\x09\0\0\0\0\0\0\0{"):
        (tmp_path / "m.safetensors").write_bytes(broken)
        with pytest.raises(UnsafeModelError, match="there are 0 weights"):
            check(tmp_path)


@pytest.mark.parametrize("base", ["/anywhere", "someone/model", "..", None])
def test_an_adapter_whose_base_lies_elsewhere_is_refused(tmp_path: Path, base: str | None) -> None:
    adapter = json.dumps({"base_model_name_or_path": base}).encode()
    with pytest.raises(UnsafeModelError, match=r"adapter_config\.json.*merged"):
        check(folder_of(tmp_path, {"adapter_config.json": adapter, "adapter_model.safetensors": b"1"}))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "m.PT", "weights.npz", "sub/x.pkl"])
def test_pickles_are_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeModelError, match="may need unpickling"):
        check(folder_of(tmp_path, {name: b""}))


def test_pickles_are_refused_by_content(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError, match="may need unpickling"):
        check(folder_of(tmp_path, {"model.safetensors": pickle.dumps([1])}))


@pytest.mark.parametrize("name", ["modeling_x.py", "x.so", "__pycache__/x.pyc"])
def test_code_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeModelError, match="is code"):
        check(folder_of(tmp_path, {name: b""}))
