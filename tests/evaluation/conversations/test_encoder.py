"""A tiny BERT with random weights, against sentence-transformers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from corewrite.evaluation.conversations.encoder import EncoderRanker
from corewrite.relevance.backends import ScorerMismatchError

sys.path.insert(0, str(Path(__file__).parents[2]))
from small_conversations import tiny_encoder

TEXTS = ["cat sat mat", "dog ran far far far far far far far far far far far far far far far far far", "bird", "cat dog bird"]


@pytest.fixture
def folder(tmp_path):
    return tiny_encoder(tmp_path / "encoder")


def pooled(folder, **modes):
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **modes}))


def test_cosines_are_those_of_sentence_transformers(folder):
    library, parts = (pytest.importorskip(f"sentence_transformers{name}") for name in ("", ".models"))
    found = EncoderRanker(folder, TEXTS).scores(["a cat", "bird", "a cat"])
    assert found.shape == (3, 4) and np.array_equal(found[0], found[2])
    transformer = parts.Transformer(str(folder), max_seq_length=12)
    model = library.SentenceTransformer(modules=[transformer, parts.Pooling(16, "mean")], device="cpu")
    passages, texts = model.encode(TEXTS, normalize_embeddings=True), model.encode(["a cat", "bird"], normalize_embeddings=True)
    assert np.allclose(found[:2], texts @ passages.T, atol=1e-5)
    assert found[1].argmax() == 2 and found[1, 2] == pytest.approx(1, abs=1e-6)


def test_the_mean_of_tokens_is_the_only_pooling(folder):
    pooled(folder, pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    EncoderRanker(folder, TEXTS[:1])
    pooled(folder, pooling_mode="mean")
    EncoderRanker(folder, TEXTS[:1])
    for other in ({"pooling_mode_cls_token": True}, {"pooling_mode": "cls"}):
        pooled(folder, **other)
        with pytest.raises(ScorerMismatchError, match=r"1_Pooling/config.json: pooling by .*cls.*: only the mean"):
            EncoderRanker(folder, TEXTS[:1])


def test_what_is_no_encoder_is_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder: name the folder of a sentence encoder"):
        EncoderRanker(tmp_path / "none", TEXTS)
    (folder / "modeling.py").write_text("")
    with pytest.raises(ScorerMismatchError, match=r"modeling\.py"):
        EncoderRanker(folder, TEXTS)
