"""Systems, fusion and figures on the small set."""

import math

import numpy as np
import pytest

from corewrite.evaluation.conversations.bm25 import Bm25Ranker
from corewrite.evaluation.conversations.fused import DEFAULT_STAGE, fused_scores, stage_of
from corewrite.evaluation.conversations.measure import Measured, collect_ranks, score_turns
from corewrite.evaluation.conversations.reader import read_conversations
from corewrite.evaluation.conversations.summary import summarise
from corewrite.evaluation.conversations.systems import baseline_rewrites
from corewrite.fusion import SpecError, default_spec, parse_spec
from corewrite.relevance.backends.calibration import ScoreCalibration

pytest.importorskip("bm25s")


@pytest.fixture
def data(files):
    return read_conversations([files[0]], [files[1]])


@pytest.fixture
def ranker(data):
    return Bm25Ranker([p.text for p in data.passages])


def test_baselines(data, ranker):
    found = baseline_rewrites(data, ranker)
    assert found["raw"] == [None] * 5
    assert found["raw_last"][1] == "What are its symptoms? How is it treated?"
    assert found["raw_first_last"][1] == "What is throat cancer? What are its symptoms? How is it treated?"
    assert found["human"][2] is None and found["human"][4] == "symptoms of lung cancer"
    # RM3 adds words of what the turn may show: not of p/1, which was shown before.
    assert found["rm3"][0].startswith("What are its symptoms? ") and "smoking" not in found["rm3"][0]


def test_ranks_are_of_candidates_that_were_not_shown(data, ranker):
    rewrites = {"own": [data.passages[row].text for row in data.own_rows], "shown": ["Throat cancer smoking"] + [None] * 4}
    ranks = collect_ranks(data, score_turns(data, rewrites, [ranker], DEFAULT_STAGE))
    assert ranks[Measured("bm25", "own", "alone")].tolist() == [1] * 5
    # p/1 says it all but was shown; p/2 and p/3 say two of the words, p/3 is the shorter one.
    (scores,) = ranker.scores(["Throat cancer smoking"])
    assert scores.argmax() == data.row_of["p/1"]
    assert ranks[Measured("bm25", "shown", "alone")][0] == 1 + int(scores[data.row_of["p/3"]] > scores[data.row_of["p/2"]])


def test_without_a_rewrite_fused_is_alone_and_an_identity_is_none(data, ranker):
    rewrites = {"raw": [None] * 5, "identity": [f" {t.query.upper()} " for t in data.turns]}
    ranks = collect_ranks(data, score_turns(data, rewrites, [ranker], DEFAULT_STAGE))
    assert len({tuple(r) for r in ranks.values()}) == 1


def test_fusion_is_the_products_of_the_algebra():
    calibration = ScoreCalibration(1.0, -2.0)
    own, new = np.array([[3.0, -np.inf, 0.5, -np.inf]]), np.array([[1.0, 4.0, -np.inf, -np.inf]])

    def p(x):
        return 1 / (1 + math.exp(-(x - 2)))

    want = [
        math.log(p(3.0)) + 0.5 * math.log(min(4, max(0.25, p(1.0) / p(3.0)))),
        math.log(p(0.0)) + 0.5 * math.log(4),  # not found by the query: 0.88 / 0.12 is clipped
        math.log(p(0.5)) + 0.5 * math.log(p(0.0) / p(0.5)),
        -np.inf,
    ]
    assert fused_scores(DEFAULT_STAGE, calibration, own, new, np.array([True]))[0] == pytest.approx(want)
    assert np.array_equal(fused_scores(DEFAULT_STAGE, calibration, own, new, np.array([False])), own)


def test_a_spec_of_more_than_relevance_is_refused():
    with pytest.raises(SpecError, match=r"finerank uses the signal 'prior', of passages there is only 'relevance'"):
        stage_of(default_spec())
    stage = "{original: [{signal: relevance, eps: 0.001}], rewrite: [{signal: relevance, eps: 0.1}]}"
    assert stage_of(parse_spec(f"version: 2\nrawrank: {stage}\nfinerank: {stage}\n")).rewrite[0].eps == 0.1


def test_figures(data):
    ranks = {
        Measured("bm25", "raw", "alone"): np.array([2, 4, 1, 0, 20]),
        Measured("bm25", "mine", "alone"): np.array([1, 4, 1, 0, 20]),
        Measured("bm25", "human", "alone"): np.array([1, 2, 1, 1, 1]),
    }
    found = summarise(data, ranks)
    rows = {(r.collection, r.system, r.metric): r for r in found.rows}
    assert {r.collection for r in found.rows} == {"made", "other", "all"}
    assert rows["made", "raw", "mrr"].value == pytest.approx((1 / 2 + 1 / 4 + 1) / 4)
    assert (rows["made", "raw", "mrr"].turns, rows["made", "raw", "mrr"].conversations) == (4, 2)
    assert rows["other", "raw", "recall@10"].value == 0 and rows["other", "raw", "recall@10"].low is None
    assert rows["all", "raw", "ndcg@10"].value == pytest.approx((1 / math.log2(3) + 1 / math.log2(5) + 1) / 5)
    share = found.share("mine", "bm25")
    assert share.value == pytest.approx(0.5 / (0.5 + 0.25 + 1 + 0.95))
    assert found.share("best_baseline", "bm25").value == 0  # raw is the only one here
    assert found.main_shares("bm25")["share_champion"] is None and found.share("human", "bm25") is None
