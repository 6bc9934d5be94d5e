"""Pins of model folders: what they cover, and that those of earlier versions go on holding."""

import hashlib
import json
import logging
import re

import pytest

from corewrite.deployment.settings import RankerSettings
from corewrite.relevance.backends import OnnxScorer, ScoreCalibration, ScorerMismatchError, folder_hash
from corewrite.relevance.backends.folder import check_pin, check_safetensors

FILES = {"b/w.safetensors": b"1", "a.json": b"two"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def by_hand(files: dict[str, bytes]) -> str:
    return sha256(json.dumps([[n, sha256(c)] for n, c in sorted(files.items())], separators=(",", ":")).encode())


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_bytes(content)
    return tmp_path / "m"


def test_hash_by_hand(folder):
    assert folder_hash(folder) == f"v2:{by_hand(FILES)}"


@pytest.mark.parametrize("name", [".weights", "README.md", "x.lock", ".cache/y.json", "b/.z"])
def test_a_pin_covers_every_file(folder, name):
    pin = folder_hash(folder)
    check_pin(folder, pin)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"1")
    with pytest.raises(ScorerMismatchError, match=re.escape(pin)):
        check_pin(folder, pin)
    named = folder_hash(folder)
    (folder / name).write_bytes(b"2")
    assert folder_hash(folder) != named


def test_a_pin_of_an_earlier_version_holds_under_its_own_rule(folder, caplog):
    pin = by_hand(FILES)
    with caplog.at_level(logging.WARNING):
        check_pin(folder, pin)
    assert not caplog.messages
    (folder / "README.md").write_bytes(b"1")
    (folder / ".gitattributes").write_bytes(b"1")
    with caplog.at_level(logging.WARNING):
        check_pin(folder, pin)  # as it did: these two were no part of it
    assert ".gitattributes" in caplog.text and folder_hash(folder) in caplog.text
    (folder / "a.json").write_bytes(b"three")
    with pytest.raises(ScorerMismatchError, match=pin):
        check_pin(folder, pin)


@pytest.mark.parametrize("pin", ["", "v2:", "v3:" + by_hand(FILES), "v2:" + "0" * 64, by_hand(FILES).upper()])
def test_other_pins_are_refused(folder, pin):
    with pytest.raises(ScorerMismatchError):
        check_pin(folder, pin)


def test_settings_take_pins_of_both_rules(folder):
    for pin in (by_hand(FILES), folder_hash(folder)):
        RankerSettings.model_validate({"signals": {"relevance": {"kind": "onnx", "folder": "m", "pin": pin}}})
    for pin in (f"v1:{by_hand(FILES)}", f"{folder_hash(folder)}0", by_hand(FILES)[1:]):
        with pytest.raises(ValueError, match="pin"):
            RankerSettings.model_validate({"signals": {"relevance": {"kind": "onnx", "folder": "m", "pin": pin}}})


def test_a_linked_folder_whose_files_no_pin_covers_is_refused(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.safetensors").write_bytes(b"1")
    (folder / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    for use in (folder_hash, check_safetensors, lambda f: check_pin(f, by_hand(FILES))):
        with pytest.raises(ScorerMismatchError, match="linked is a link to a folder"):
            use(folder)


def test_a_folder_whose_weights_lie_elsewhere_is_refused(folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": "../w.safetensors"}}))
    with pytest.raises(ScorerMismatchError, match="maps 'a' to"):
        check_safetensors(folder)


def test_an_earlier_pin_does_not_cover_weights_that_onnx_reads_from_a_hidden_file(catalogue, onnx_folder):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(onnx_folder / "model.onnx")
    (weights,) = (i for i in model.graph.initializer if i.name == "weights")
    (onnx_folder / ".weights").write_bytes(onnx.numpy_helper.to_array(weights).tobytes())
    weights.ClearField("raw_data")
    weights.ClearField("float_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=".weights")
    onnx.save(model, onnx_folder / "model.onnx")
    OnnxScorer(catalogue, onnx_folder, folder_hash(onnx_folder), ScoreCalibration())
    pin = by_hand({f.name: f.read_bytes() for f in onnx_folder.iterdir() if not f.name.startswith(".")})
    with pytest.raises(ScorerMismatchError, match=r"\.weights.*does not cover"):
        OnnxScorer(catalogue, onnx_folder, pin, ScoreCalibration())
