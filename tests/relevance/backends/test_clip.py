"""A tiny CLIP model with random weights, against its own logits."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel

from corewrite.relevance.backends import ClipEncoder, ClipScorer, ScoreCalibration, ScoreError, ScorerMismatchError, folder_hash
from corewrite.relevance.cache import CachedScorer

TEXTS = ["red lion", "how to dance and a text that is far too long for it", "red lion"]
ROWS = np.array([[0, 1, -1], [3, 2, 0], [3, -1, -1]])


@pytest.fixture
def encoder(clip_folder):
    return ClipEncoder(clip_folder, folder_hash(clip_folder), batch=2)


def test_score_is_the_calibrated_cosine_with_the_given_pictures(catalogue, clip_folder, encoder):
    scorer = ClipScorer(catalogue, encoder, catalogue.visual, ScoreCalibration(3.0, -0.5))
    scores = scorer.score(TEXTS, ROWS)
    model, tokenizer = CLIPModel.from_pretrained(clip_folder).eval(), AutoTokenizer.from_pretrained(clip_folder)
    for i, text in enumerate(TEXTS):
        tokens = tokenizer(text, truncation=True, max_length=8, return_tensors="pt")
        with torch.no_grad():
            vector = model.get_text_features(tokens.input_ids).pooler_output[0].numpy()
        for j, row in enumerate(ROWS[i]):
            picture = catalogue.visual[row]
            if row == 2:
                assert scores[i, j] == 1e-6  # no picture: nothing is matched
                continue
            cosine = vector @ picture / (np.linalg.norm(vector) * np.linalg.norm(picture))
            wanted = 0.0 if row < 0 else 1 / (1 + np.exp(-(3.0 * cosine - 0.5)))
            assert scores[i, j] == pytest.approx(wanted, abs=1e-5)
    cached = CachedScorer(scorer)
    assert np.array_equal(cached.score(TEXTS, ROWS), scores) and np.array_equal(cached.score(TEXTS, ROWS), scores)
    assert np.allclose(np.linalg.norm(scorer.document_vectors, axis=1), [1, 1, 0, 1])


def test_pictures_are_embedded_as_the_model_does(catalogue, clip_folder, encoder):
    image_module = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(0)
    images = [image_module.fromarray(draw.integers(0, 256, (9, 12, 3), np.uint8)) for _ in range(4)]
    vectors = encoder.embed_images(images)
    model, tokenizer = CLIPModel.from_pretrained(clip_folder).eval(), AutoTokenizer.from_pretrained(clip_folder)
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(images, return_tensors="pt").pixel_values
    tokens = tokenizer(["red lion"], return_tensors="pt")
    with torch.no_grad():
        answer = model(input_ids=tokens.input_ids, pixel_values=pixels)
    cosine = (answer.logits_per_text / model.logit_scale.exp())[0].detach().numpy()
    scores = ClipScorer(catalogue, encoder, vectors, ScoreCalibration()).score(["red lion"], np.arange(4)[None])
    assert scores[0] == pytest.approx(1 / (1 + np.exp(-cosine)), abs=1e-5)
    assert len(np.unique(scores.round(5))) == 4


def test_hash_moves_with_pictures_calibration_and_weights(catalogue, clip_folder, encoder):
    other = catalogue.visual.copy()
    other[0] = [0, 3, 0, 0]
    made = [
        ClipScorer(catalogue, encoder, catalogue.visual, ScoreCalibration()),
        ClipScorer(catalogue, encoder, catalogue.visual, ScoreCalibration(2.0)),
        ClipScorer(catalogue, encoder, other, ScoreCalibration()),
    ]
    weights = load_file(clip_folder / "model.safetensors")
    weights["text_projection.weight"] *= -1
    save_file(weights, clip_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ScorerMismatchError, match=encoder.pin):
        ClipEncoder(clip_folder, encoder.pin)
    made.append(ClipScorer(catalogue, ClipEncoder(clip_folder, folder_hash(clip_folder)), catalogue.visual, ScoreCalibration()))
    assert len({m.model_hash for m in made}) == 4


def test_a_missing_picture_is_matched_by_nothing(catalogue, encoder):
    visual = catalogue.visual.copy()
    visual[1] = np.nan
    zeros = np.where(np.isnan(visual), np.float32(0), visual)
    found = [ClipScorer(catalogue, encoder, v, ScoreCalibration()) for v in (visual, zeros)]
    assert found[0].model_hash == found[1].model_hash
    scores = found[0].score(["lion"], np.array([[0, 1, 2, 3]]))[0]
    assert scores[1] == scores[2] == 1e-6 < scores[0] and not found[0].document_vectors[1].any()


def test_what_does_not_fit_is_refused(catalogue, clip_folder, encoder):
    with pytest.raises(ValueError, match=r"\(4, 3\), not \(4, 4\)"):
        ClipScorer(catalogue, encoder, catalogue.visual[:, :3], ScoreCalibration())
    visual = catalogue.visual.copy()
    visual[1, 2] = np.nan
    spoilt = dataclasses.replace(catalogue, visual=visual)
    with pytest.raises(ValueError, match="document 'b'"):
        ClipScorer(spoilt, encoder, spoilt.visual, ScoreCalibration())
    weights = load_file(clip_folder / "model.safetensors")
    weights["text_model.embeddings.token_embedding.weight"][7] = np.nan  # "rice"
    save_file(weights, clip_folder / "model.safetensors", {"format": "pt"})
    scorer = ClipScorer(catalogue, ClipEncoder(clip_folder, folder_hash(clip_folder)), catalogue.visual, ScoreCalibration())
    with pytest.raises(ScoreError, match="document 'b'"):
        scorer.score(["lion", "cook rice"], np.array([[0], [1]]))
    del weights["text_projection.weight"]
    save_file(weights, clip_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ScorerMismatchError, match="lacks weights such as text_projection"):
        ClipEncoder(clip_folder, folder_hash(clip_folder))


def test_another_kind_of_model_is_refused(cross_encoder_folder):
    with pytest.raises(ScorerMismatchError, match="'bert'"):
        ClipEncoder(cross_encoder_folder, folder_hash(cross_encoder_folder))
