"""Fitting learns, pictures help, probabilities are calibrated."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from corewrite.relevance import Impressions, evaluate, fit, held_out


@pytest.fixture(scope="module")
def fitted(model, catalogue, impressions):
    return fit(model, catalogue, impressions, seed=0, epochs=4, batch=512)


def test_fitting_beats_the_cold_start_on_held_out_users(fitted, model, catalogue, impressions):
    test = held_out(impressions.user_ids)
    texts = [t for t, h in zip(impressions.texts, test, strict=True) if h]
    cold = model.bind(catalogue).score(texts, impressions.rows[test][:, None])[:, 0]
    labels = np.asarray(impressions.satisfied)[test]
    _, report = fitted
    assert report.auc > roc_auc_score(labels, cold) + 0.01
    assert report.auc > 0.75 and report.calibration_error < 0.08


def test_pictures_help(fitted, model, catalogue, impressions):
    _, blind = fit(model, catalogue, impressions, seed=0, epochs=4, batch=512, use_picture=False)
    assert fitted[1].auc > blind.auc + 0.01


def test_fitting_is_reproducible(fitted, model, catalogue, impressions):
    again, _ = fit(model, catalogue, impressions, seed=0, epochs=4, batch=512)
    assert again.model_hash == fitted[0].model_hash


def test_a_matched_word_never_counts_less_than_a_missed_one(fitted):
    assert fitted[0].scalar("gain") >= fitted[0].scalar("toll") >= 0 and (fitted[0].weight >= 0).all()


def test_report_by_hand():
    p = np.array([0.1, 0.9, 0.8, 0.3])
    report = evaluate(p, np.array([False, True, False, True]), np.ones(4))
    assert report.auc == 0.75
    assert report.log_loss == pytest.approx(-np.mean(np.log([0.9, 0.9, 0.2, 0.3])))
    assert report.calibration_error == pytest.approx(np.mean([0.1, 0.1, 0.8, 0.7]))


def test_one_sided_logs_are_refused(model, catalogue):
    log = Impressions(["a"] * 5, np.zeros(5, np.int64), np.zeros(5, np.bool_), np.ones(5), ["u"] * 5)
    with pytest.raises(ValueError, match="0 satisfied of 5"):
        fit(model, catalogue, log, seed=0)
