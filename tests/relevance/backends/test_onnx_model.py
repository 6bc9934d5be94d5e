"""An ONNX model whose logits can be added up by hand."""

import numpy as np
import pytest

from corewrite.relevance.backends import OnnxScorer, ScoreCalibration, ScoreError, ScorerMismatchError, folder_hash
from corewrite.relevance.cache import CachedScorer

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
ROWS = np.array([[0, 1, -1], [3, 2, 0]])
TEXTS = ["red lion", "how to dance"]
# red 1, lion -2, dance 0.5, rice 3, cook -1, snow 0.25, how 2, to -0.5; a word of the document counts thrice.
LOGITS = np.array([[-1 - 3, -1 + 3 * (-2 + 0.5 + 0.5), 0], [2 + 0.75, 2 + 3 * (2 - 0.5 - 1 + 3), 2 - 3]])


def test_scores_are_those_of_the_model(catalogue, onnx_folder):
    calibration = ScoreCalibration(0.5, 0.25)
    for batch in (1, 2, 32):  # padding differs, scores do not
        scorer = OnnxScorer(catalogue, onnx_folder, folder_hash(onnx_folder), calibration, batch=batch)
        scores = scorer.score(TEXTS, ROWS)
        assert scores == pytest.approx(np.where(ROWS < 0, 0, 1 / (1 + np.exp(-(0.5 * LOGITS + 0.25)))), abs=1e-6)
    cached = CachedScorer(scorer)
    assert np.array_equal(cached.score(TEXTS, ROWS), cached.score(TEXTS, ROWS)) and cached.hits == 5


def test_long_pairs_are_cut(catalogue, onnx_folder):
    scorer = OnnxScorer(catalogue, onnx_folder, folder_hash(onnx_folder), ScoreCalibration(), max_tokens=5)
    # Of "red lion" and "red lion" in 5 tokens, 3 of them marks: one word each.
    assert scorer.score(["red lion"], np.array([[0]]))[0, 0] == pytest.approx(1 / (1 + np.exp(-4.0)), abs=1e-6)


def test_pin_covers_both_files_and_the_hash_the_settings(catalogue, onnx_folder):
    pin = folder_hash(onnx_folder)
    hashes = {
        OnnxScorer(catalogue, onnx_folder, pin, calibration, max_tokens=n).model_hash
        for calibration, n in [
            (ScoreCalibration(), 256),
            (ScoreCalibration(2.0), 256),
            (ScoreCalibration(1.0, 1.0), 256),
            (ScoreCalibration(), 255),
        ]
    }
    assert len(hashes) == 4
    for name in ("tokenizer.json", "model.onnx"):
        kept = (onnx_folder / name).read_bytes()
        (onnx_folder / name).write_bytes(kept + b" ")
        with pytest.raises(ScorerMismatchError, match=pin):
            OnnxScorer(catalogue, onnx_folder, pin, ScoreCalibration())
        (onnx_folder / name).write_bytes(kept)
    (onnx_folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        OnnxScorer(catalogue, onnx_folder, pin, ScoreCalibration())


def changed(folder, change):
    model = onnx.load(folder / "model.onnx")
    change(model.graph)
    onnx.save(model, folder / "model.onnx")
    return folder_hash(folder)


def test_nan_names_the_document_and_other_inputs_are_refused(catalogue, onnx_folder):
    weights = np.array([100, 7, 0, 0, 1, -2, 0.5, np.nan, -1, 0.25, 2, -0.5], np.float32)

    def spoil(graph):
        graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "weights"))

    scorer = OnnxScorer(catalogue, onnx_folder, changed(onnx_folder, spoil), ScoreCalibration())
    assert np.isfinite(scorer.score(["lion"], np.array([[0, 1, 3]]))).all()
    with pytest.raises(ScoreError, match="document 'c' is nan"):
        scorer.score(["lion"], np.array([[0, 1, 2, 3]]))

    def rename(graph):
        for node in graph.node:
            node.input[:] = ["pixels" if i == "token_type_ids" else i for i in node.input]
        graph.input[2].name = "pixels"

    pin = changed(onnx_folder, rename)
    with pytest.raises(ScorerMismatchError, match="pixels"):
        OnnxScorer(catalogue, onnx_folder, pin, ScoreCalibration())
