"""A package that is not there is named with the extra that brings it."""

import sys

import pytest

from corewrite.relevance.backends import CrossEncoderScorer, KServeScorer, OnnxScorer, ScoreCalibration


@pytest.mark.parametrize(
    "package, extra, make",
    [
        ("httpx", "kserve", lambda c, folder: KServeScorer(c, "http://localhost:1", "ranker", "1")),
        ("onnxruntime", "onnx", lambda c, folder: OnnxScorer(c, folder, "", ScoreCalibration())),
        ("sentence_transformers", "cross-encoder", lambda c, folder: CrossEncoderScorer(c, folder, "", ScoreCalibration())),
    ],
)
def test_the_hint_names_the_extra(catalogue, tmp_path, monkeypatch, package, extra, make):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"corewrite\[{extra}\]"):
        make(catalogue, tmp_path)
