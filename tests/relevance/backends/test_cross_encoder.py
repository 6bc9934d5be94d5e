"""A tiny BERT cross-encoder with random weights, against transformers by hand."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from corewrite.relevance.backends import CrossEncoderScorer, ScoreCalibration, ScoreError, ScorerMismatchError, folder_hash
from corewrite.relevance.cache import CachedScorer

pytest.importorskip("sentence_transformers")
ROWS = np.array([[0, 1, -1], [3, 2, 0]])
TEXTS = ["red lion", "how to dance"]
DOCUMENTS = ["red lion", "lion dance dance", "how to cook rice", "snow"]


def by_hand(folder, text, document):
    """One logit, one pair at a time, no padding."""
    tokens = AutoTokenizer.from_pretrained(folder)(text, document, return_tensors="pt")
    with torch.no_grad():
        return AutoModelForSequenceClassification.from_pretrained(folder).eval()(**tokens).logits.item()


def test_scores_are_calibrated_logits_of_the_model(catalogue, cross_encoder_folder):
    scorer = CrossEncoderScorer(catalogue, cross_encoder_folder, folder_hash(cross_encoder_folder), ScoreCalibration(0.5, 0.25))
    scores = scorer.score(TEXTS, ROWS)
    for i, text in enumerate(TEXTS):
        for j, row in enumerate(ROWS[i]):
            logit = by_hand(cross_encoder_folder, text, DOCUMENTS[row])
            wanted = 0.0 if row < 0 else 1 / (1 + np.exp(-(0.5 * logit + 0.25)))
            assert scores[i, j] == pytest.approx(wanted, abs=1e-5)
    assert len(np.unique(scores.round(6))) == 6  # else any mix-up of pairs would pass
    cached = CachedScorer(scorer)
    assert np.array_equal(cached.score(TEXTS, ROWS), cached.score(TEXTS, ROWS)) and cached.hits == 5


def load(catalogue, folder, pin=None):
    return CrossEncoderScorer(catalogue, folder, pin or folder_hash(folder), ScoreCalibration())


def test_pin_and_hash(catalogue, cross_encoder_folder):
    pin = folder_hash(cross_encoder_folder)
    known = load(catalogue, cross_encoder_folder, pin).model_hash
    assert CrossEncoderScorer(catalogue, cross_encoder_folder, pin, ScoreCalibration(), max_tokens=9).model_hash != known
    weights = load_file(cross_encoder_folder / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, cross_encoder_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ScorerMismatchError, match=pin):
        load(catalogue, cross_encoder_folder, pin)
    assert load(catalogue, cross_encoder_folder).model_hash != known


def test_pickles_code_and_missing_weights_are_refused(catalogue, cross_encoder_folder):
    for name in ("pytorch_model.bin", "modeling_evil.py"):
        (cross_encoder_folder / name).write_bytes(b"")
        with pytest.raises(ScorerMismatchError, match=name):
            load(catalogue, cross_encoder_folder)
        (cross_encoder_folder / name).unlink()
    weights = load_file(cross_encoder_folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, cross_encoder_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ScorerMismatchError, match=r"lacks weights such as classifier\.weight \(1 in all\)"):
        load(catalogue, cross_encoder_folder)
    (cross_encoder_folder / "model.safetensors").unlink()
    with pytest.raises(ScorerMismatchError, match=r"no \*\.safetensors"):
        load(catalogue, cross_encoder_folder)
    with pytest.raises(FileNotFoundError):
        load(catalogue, cross_encoder_folder / "nowhere")


def test_two_labels_are_no_relevance(catalogue, cross_encoder_folder):
    config = BertConfig.from_pretrained(cross_encoder_folder)
    config.num_labels = 2
    BertForSequenceClassification(config).save_pretrained(cross_encoder_folder)
    with pytest.raises(ScorerMismatchError, match="2 labels"):
        load(catalogue, cross_encoder_folder)


def test_nan_names_the_document(catalogue, cross_encoder_folder):
    weights = load_file(cross_encoder_folder / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][7] = np.nan  # "rice"
    save_file(weights, cross_encoder_folder / "model.safetensors", {"format": "pt"})
    scorer = load(catalogue, cross_encoder_folder)
    assert np.isfinite(scorer.score(["lion"], np.array([[0, 1, 3]]))).all()
    with pytest.raises(ScoreError, match="document 'c' is nan"):
        scorer.score(["lion"], np.array([[0, 2]]))
