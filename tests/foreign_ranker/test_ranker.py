"""The ranker that plays the user's own: it ranks, reads words and picture, cannot be gamed, and is the same in ONNX."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from foreign_ranker.broken import break_ranker
from foreign_ranker.ranker import ForeignRanker
from foreign_ranker.tokens import document_texts
from foreign_ranker.train import TrainingConfig, train_ranker
from scipy.special import logit
from tokenizers import Tokenizer

from corewrite.deployment.deployment import Deployment
from corewrite.relevance import probe
from corewrite.relevance.backends import OnnxScorer, ScoreCalibration, folder_hash
from corewrite.relevance.backends.inputs import Input
from corewrite.simulation.intents import ndcg10


def deployed(platform, relevance) -> Deployment:
    ranker = platform.cold.ranker
    return Deployment(replace(ranker, signals={**ranker.signals, "relevance": relevance}), platform.cold.spec)


def true_ndcg10(platform, relevance) -> float:
    week = platform.fresh
    rows = deployed(platform, relevance).cascade.search([q.text for q in week.queries], [None] * len(week)).rows
    return float(ndcg10(platform.world, week.intents, rows).mean())


def probed(platform, ranker):
    instances = platform.window.instances(platform.catalogue, seed=0)[:400]
    return probe(instances, deployed(platform, ranker.bind(platform.catalogue)).reward)


def test_it_is_a_trained_cross_encoder_of_a_million_parameters(platform, trained):
    ranker, report = trained
    assert report.num_parameters >= 1_000_000
    # The base rate alone has 0.5 and 0.49 nats. A mature engine shows little that is wrong, so a click log teaches little.
    assert report.auc > 0.53 and report.log_loss < 0.485
    cold = platform.cold.ranker.signals["relevance"]
    assert true_ndcg10(platform, ranker.bind(platform.catalogue)) > 0.85 * true_ndcg10(platform, cold)


def test_it_reads_the_picture(platform, ranker):
    seeing, blind = (true_ndcg10(platform, ranker.bind(platform.catalogue, use_picture=p)) for p in (True, False))
    assert blind < 0.95 * seeing


def test_it_reads_the_words(platform, ranker):
    """Without any text there is nothing to rank by but the picture."""
    n = len(platform.catalogue)
    wordless = replace(platform.catalogue, titles=("",) * n, texts=("",) * n)
    seeing = true_ndcg10(platform, ranker.bind(platform.catalogue))
    assert true_ndcg10(platform, ranker.bind(wordless)) < 0.85 * seeing


def test_nothing_adversarial_is_paid(platform, ranker):
    result = probed(platform, ranker)
    assert result.passed, result
    assert {f.name: f.reward for f in result.findings}["repetition"] == pytest.approx(0, abs=1e-6)


def test_the_version_that_counts_repeats_is_refused_by_the_probe_alone(platform, ranker):
    broken = break_ranker(ranker, "repeats")
    assert [f.name for f in probed(platform, broken).findings if f.paid] == ["repetition"]
    good, bad = (true_ndcg10(platform, r.bind(platform.catalogue)) for r in (ranker, broken))
    assert bad == pytest.approx(good, abs=0.01)


def test_the_version_with_shuffled_looks_ranks_worse(platform, ranker):
    broken = break_ranker(ranker, "pictures")
    good, bad = (true_ndcg10(platform, r.bind(platform.catalogue)) for r in (ranker, broken))
    assert bad < 0.97 * good
    with pytest.raises(ValueError, match=r"no breakage 'loud'.*repeats"):
        break_ranker(ranker, "loud")


def run(session: onnxruntime.InferenceSession, tokenizer: Tokenizer, texts, documents, pictures, extra_padding=0):
    encoded = tokenizer.encode_batch(list(zip(texts, documents, strict=True)))
    columns = ([e.ids for e in encoded], [e.attention_mask for e in encoded], [e.type_ids for e in encoded])
    names = ("input_ids", "attention_mask", "token_type_ids")
    feed = {name: np.pad(np.array(c, np.int64), ((0, 0), (0, extra_padding))) for name, c in zip(names, columns, strict=True)}
    return session.run(None, feed | {"picture": pictures})[0]


@pytest.fixture(scope="module")
def flat(platform, pairs):
    texts, rows = pairs
    owner, row = np.repeat(np.arange(len(texts)), rows.shape[1]), rows.ravel()
    owner, row = owner[row >= 0], row[row >= 0]
    said = document_texts(platform.catalogue)
    pictures = platform.catalogue.visual[row]
    pictures[::7] = 0  # some documents have none
    return [texts[i] for i in owner], [said[r] for r in row], pictures


@pytest.fixture(scope="module")
def onnx(folder):
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return session, Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_a_score_depends_on_its_own_pair_alone(onnx, flat):
    texts, documents, pictures = flat
    whole = run(*onnx, texts, documents, pictures)
    assert whole.shape == (len(texts), 1) and whole.dtype == np.float32 and np.isfinite(whole).all()
    assert len(np.unique(whole)) > 0.5 * len(whole)
    alone = np.concatenate([run(*onnx, [t], [d], p[None]) for t, d, p in zip(texts, documents, pictures, strict=True)])
    padded = run(*onnx, texts, documents, pictures, extra_padding=9)
    order = np.random.default_rng(1).permutation(len(texts))
    mixed = np.empty_like(whole)
    for group in np.array_split(order, 11):
        mixed[group] = run(*onnx, [texts[i] for i in group], [documents[i] for i in group], pictures[group])
    for other in (alone, padded, mixed):
        np.testing.assert_allclose(other, whole, atol=5e-6, rtol=0)


def test_onnx_gives_the_scores_of_torch(platform, ranker, folder, pairs):
    texts, rows = pairs
    here = ranker.bind(platform.catalogue).score(texts, rows)
    there = OnnxScorer(
        platform.catalogue, folder, folder_hash(folder), ScoreCalibration(), inputs={"picture": Input("document.visual")}
    ).score(texts, rows)
    np.testing.assert_allclose(logit(there[rows >= 0]), logit(here[rows >= 0]), atol=1e-5, rtol=0)
    assert ((here == 0) == (rows < 0)).all()


def test_saying_a_word_twice_changes_nothing(platform, ranker, pairs):
    texts, rows = pairs
    bound = ranker.bind(platform.catalogue)
    short = [t for t in texts[:60] if t]
    twice = bound.score([f"{t} {t}" for t in short], rows[: len(short)])
    np.testing.assert_allclose(twice, bound.score(short, rows[: len(short)]), atol=1e-6)


def test_a_document_without_picture_is_one_of_zeros(platform, ranker, pairs):
    texts, rows = pairs
    catalogue = platform.catalogue
    nothing = replace(catalogue, visual=np.full_like(catalogue.visual, np.nan))
    blind = ranker.bind(catalogue, use_picture=False).score(texts, rows)
    assert (ranker.bind(nothing).score(texts, rows) == blind).all()


def test_saved_and_loaded_it_is_the_same(platform, ranker, pairs, tmp_path):
    ranker.save(tmp_path)
    again = ForeignRanker.load(tmp_path)
    assert again.model_hash == ranker.model_hash
    assert (again.bind(platform.catalogue).score(*pairs) == ranker.bind(platform.catalogue).score(*pairs)).all()


def test_the_same_seed_gives_the_same_ranker(platform):
    impressions = platform.window.impressions(platform.catalogue)
    short = TrainingConfig(clozes=1024, epochs=0.1)
    first, second, other = (train_ranker(platform.catalogue, impressions, seed=s, config=short)[0] for s in (5, 5, 6))
    assert first.model_hash == second.model_hash != other.model_hash


def test_impressions_that_teach_nothing_are_refused(platform):
    impressions = platform.window.impressions(platform.catalogue)
    with pytest.raises(ValueError, match="0 satisfied: both are needed"):
        train_ranker(platform.catalogue, replace(impressions, satisfied=np.zeros(len(impressions.rows), np.bool_)), seed=0)


def test_nothing_of_the_ranker_but_its_measuring_imports_the_simulation():
    package = Path(sys.modules["foreign_ranker.train"].__file__).parent
    for file in package.rglob("*.py"):
        assert file.name == "measure.py" or "corewrite.simulation" not in file.read_text("utf-8"), file
