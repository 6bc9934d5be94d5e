import json

import numpy as np
import pytest
import statsmodels.api as sm

from corewrite.evaluation.conversations.bm25 import Bm25Ranker
from corewrite.evaluation.conversations.calibrate import fit_calibration, load_calibrations
from corewrite.evaluation.conversations.reader import ConversationsError, read_conversations
from corewrite.evaluation.conversations.records import ConversationSet, Passage, Turn
from corewrite.relevance.backends.calibration import ScoreCalibration

pytest.importorskip("sklearn")


class Fixed:
    """Given scores, one row after the other."""

    name, calibration = "fixed", ScoreCalibration()

    def __init__(self, scores):
        self.rows = iter(scores)

    def scores(self, texts):
        return np.array([next(self.rows)])


def test_it_is_the_logistic_regression_of_statsmodels():
    rng = np.random.default_rng(0)
    passages, turns, scores = [Passage(f"p{i}", "x") for i in range(6)], [], []
    for i in range(300):
        drawn = rng.normal(0, 1, 6)
        odds = np.exp(2 * drawn)
        own = int(rng.choice(6, p=odds / odds.sum()))
        shown = (own + 1) % 6
        turns.append(Turn("made", "c", str(i), "q", "h" if i % 10 else None, ("e",), (f"p{shown}",), f"p{own}"))
        if i % 10:
            scores.append(np.where(np.arange(6) == (own + 2) % 6, -np.inf, drawn))
    found = fit_calibration(ConversationSet(turns, passages), Fixed([row.copy() for row in scores]))
    measured = [t for t in turns if t.human_rewrite]
    x, y = [], []
    for turn, row in zip(measured, scores, strict=True):
        kept = [k for k in range(6) if f"p{k}" not in turn.earlier_passages and row[k] > -np.inf]
        x += [row[k] for k in kept]
        y += [float(f"p{k}" == turn.passage) for k in kept]
    offset, slope = sm.Logit(y, sm.add_constant(np.array(x))).fit(disp=0).params
    assert (found.slope, found.offset) == pytest.approx((slope, offset), rel=1e-3)


def test_what_cannot_be_fitted_is_said(files):
    data = read_conversations([files[0]], [files[1]])
    backwards = np.zeros((len(data.turns), len(data.passages)))
    for scores, own in zip(backwards, data.own_rows, strict=True):
        scores[own] = -1 - own / 100
    with pytest.raises(ConversationsError, match="fixed cannot be calibrated: passages that answer have lower scores"):
        fit_calibration(data, Fixed(backwards + np.arange(len(data.passages)) / 1000))
    none = ConversationSet([t for t in data.turns if t.human_rewrite is None], data.passages)
    with pytest.raises(ConversationsError, match="no person's rewrite finds its passage"):
        fit_calibration(none, Bm25Ranker([p.text for p in data.passages]))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"bm26": {"slope": 1, "offset": 0}}, r"'bm26' is no ranker \(bm25, minilm\): take it out"),
        ({"bm25": {"slope": 1}}, r"bm25 has slope: it holds"),
        ({"bm25": {"slope": -1.0, "offset": 0.0}}, r"bm25: a calibration has a finite slope above 0"),
        ({"bm25": 3}, r"it holds"),
        ([], r"no JSON object"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, value, said):
    file = tmp_path / "c.json"
    file.write_text(json.dumps(value))
    with pytest.raises(ConversationsError, match=said):
        load_calibrations(file, ("bm25", "minilm"))
    file.write_text('{"bm25": {"slope": 0.5, "offset": -6}}')
    assert load_calibrations(file, ("bm25", "minilm")) == {"bm25": ScoreCalibration(0.5, -6.0)}
