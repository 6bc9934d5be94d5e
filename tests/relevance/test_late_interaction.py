"""The bundled model against its own formula, computed the slow way, and the properties that make it hard to game."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from corewrite.domain import Catalogue, words
from corewrite.relevance import BoundLateInteraction, DenseScorer, LateInteraction


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_score(model, catalogue, text, row):
    """logit = bias + sum_t w_t (gain m_t - toll) - toll_unknown * unknown, straight from the module's docstring."""
    index = {w: i for i, w in enumerate(model.vocabulary.words)}
    document = [index[w] for w in dict.fromkeys(words(f"{catalogue.titles[row]} {catalogue.texts[row]}")) if w in index]
    logit, s = model.scalar("bias"), model.scalar
    picture = catalogue.visual[row] - model.mean_picture
    for word in dict.fromkeys(words(text)):
        if word not in index:
            logit -= s("toll_unknown")
            continue
        t = index[word]
        best = max((float(model.word[t] @ model.word[d]) for d in document), default=-1.0)
        said = sigmoid(s("text_slope") * (best - s("text_offset")))
        seen = sigmoid(s("picture_slope") * (float(picture @ model.picture[t]) - model.picture_bias[t]))
        logit += model.weight[t] * (s("gain") * max(said, seen) - s("toll"))
    return sigmoid(s("calibration_slope") * logit + s("calibration_bias"))


def test_scores_equal_the_formula(model, catalogue):
    texts = [catalogue.titles[3], "football highlights", "nowhere known at all", "", f"{catalogue.titles[5]} zzz zzz"]
    rows = np.array([[3, 7, -1], [0, 1, 2], [3, 4, 5], [0, 1, -1], [5, 6, 7]])
    scores = model.bind(catalogue).score(texts, rows)
    for i, text in enumerate(texts):
        for j, row in enumerate(rows[i]):
            expected = 0.0 if row < 0 else np.clip(slow_score(model, catalogue, text, row), 1e-6, 1 - 1e-6)
            assert scores[i, j] == pytest.approx(expected, abs=2e-5)


def test_repeats_count_once_and_every_met_part_adds(model, catalogue):
    bound = model.bind(catalogue)
    title = words(catalogue.titles[10])
    rows = np.array([[10]])

    def score(text):
        return float(bound.score([text], rows)[0, 0])

    assert score(" ".join(title[:1] * 5)) == score(title[0])
    said = [score(" ".join(title[:k])) for k in range(1, len(title) + 1)]
    assert all(b > a for a, b in zip(said[:-1], said[1:], strict=True)), "each further word of the document must add"
    assert score(f"{' '.join(title)} entirely unknown words") < said[-1], "a word that is not met must cost"


def test_a_small_table_gives_the_same_scores(model, catalogue):
    """Words that do not fit the table of matches are computed again, not forgotten."""
    texts = list(catalogue.titles[:600])
    rows = np.tile(np.arange(4), (600, 1))
    small = BoundLateInteraction(model, catalogue, table_bytes=4 * len(catalogue) * 900)
    assert np.array_equal(small.score(texts, rows), model.bind(catalogue).score(texts, rows))


def test_save_and_load(model, catalogue, tmp_path):
    model.save(tmp_path)
    loaded = LateInteraction.load(tmp_path)
    assert loaded.model_hash == model.model_hash
    rows = np.arange(20)[None, :]
    assert np.array_equal(loaded.bind(catalogue).score(["football"], rows), model.bind(catalogue).score(["football"], rows))
    with pytest.raises(FileNotFoundError, match="holds no relevance model"):
        LateInteraction.load(tmp_path / "nowhere")


def test_pictures_of_another_size_are_refused(model, catalogue):
    other = Catalogue(("a",), ("t",), ("",), np.zeros((1, 7), np.float32), np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="7 dimensions"):
        model.bind(other)


def test_dense_vectors_are_unit_or_nothing(model, catalogue):
    dense = DenseScorer(model.bind(catalogue))
    assert np.allclose(np.linalg.norm(dense.document_vectors, axis=1), 1, atol=0.3)
    assert (dense.embed_texts(["unknownword"]) == 0).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder, arrays: (folder / "model.safetensors").write_bytes(b"\xff" * 40),
        lambda folder, arrays: (folder / "vocabulary.txt").write_bytes(b"\xff\xfe"),
        lambda folder, arrays: (folder / "vocabulary.txt").write_text("one\nword\ntoo\nmany"),
        lambda folder, arrays: save_file({k: v for k, v in arrays.items() if k != "scalars"}, folder / "model.safetensors"),
        lambda folder, arrays: save_file({**arrays, "more": arrays["word"]}, folder / "model.safetensors"),
        lambda folder, arrays: save_file({**arrays, "scalars": arrays["scalars"][:5]}, folder / "model.safetensors"),
        lambda folder, arrays: save_file({**arrays, "weight": arrays["weight"].astype(int)}, folder / "model.safetensors"),
        lambda folder, arrays: save_file({**arrays, "mean_picture": arrays["picture"]}, folder / "model.safetensors"),
    ],
)
def test_a_damaged_model_is_one_error(model, tmp_path, change):
    model.save(tmp_path)
    assert LateInteraction.load(tmp_path).model_hash == model.model_hash
    change(tmp_path, load_file(tmp_path / "model.safetensors"))
    with pytest.raises(ValueError, match="holds a relevance model that is damaged"):
        LateInteraction.load(tmp_path)
