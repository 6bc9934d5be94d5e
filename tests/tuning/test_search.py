"""Tuning to a damage budget, against brute force in plain Python."""

import importlib.util
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.fusion import OriginalSignal, RewriteSignal, StageSpec, default_spec, load_spec
from corewrite.tuning.data import TuningRequests
from corewrite.tuning.files import RequestsError, broken_rewrites, read_requests
from corewrite.tuning.grid import Grid, build_stages
from corewrite.tuning.quality import ndcg10, reciprocal_rank
from corewrite.tuning.search import tune

ROOT = Path(__file__).resolve().parents[2]
CAST = ROOT / ".." / "shared" / "data" / "cast"
STAGE = StageSpec(
    original=(OriginalSignal(signal="s", eps=0.01), OriginalSignal(signal="prior", eps=0.05, exponent=0.3)),
    rewrite=(RewriteSignal(signal="s", eps=0.03),),
)
GRID = Grid(lo=(0.3, 0.8, 1.0), hi=(1.0, 1.5, 4.0), share=(0.2, 0.5), eps=(1.0, 3.0))


def made(n=60, documents=14, groups=12, seed=0):
    """Requests where the champion sees what is relevant, and two broken kinds see noise or the contrary."""
    rng = np.random.default_rng(seed)
    relevance = rng.choice([0.0, 0.0, 0.0, 1.0, 2.0, 3.0], (n, documents))
    valid = np.arange(documents) < rng.integers(10, documents + 1, n)[:, None]
    own = np.clip(0.15 * relevance + rng.uniform(0, 0.6, relevance.shape), 0, 1)
    under = {
        "noise": {"s": rng.uniform(0, 1, relevance.shape)},
        "champion": {"s": np.clip(0.25 * relevance + rng.uniform(0, 0.2, relevance.shape), 0, 1)},
        "contrary": {"s": np.clip(0.6 - 0.2 * relevance + rng.uniform(0, 0.3, relevance.shape), 0, 1)},
    }
    under["contrary"]["s"][:5] = np.nan
    group = tuple(f"u{i % groups:02d}" for i in range(n))
    return TuningRequests(group, relevance, valid, {"s": own, "prior": rng.uniform(0, 1, relevance.shape)}, under)


def plain_ndcg(scores, grades):
    """By sorting Python tuples, and the definition."""
    ranked = sorted(range(len(scores)), key=lambda d: (-scores[d], d))[:10]
    dcg = sum(grades[d] / math.log2(k + 2) for k, d in enumerate(ranked))
    ideal = sum(g / math.log2(k + 2) for k, g in enumerate(sorted(grades, reverse=True)[:10]))
    return dcg / ideal if ideal else 0.0


def plain_score(stage, own, prior, rewrite):
    """The algebra, one document; `rewrite` None: absent."""
    score = min(max(own, 0.01), 1.0) * min(max(prior, 0.05), 1.0) ** 0.3
    for j in stage.rewrite:
        if rewrite is not None:
            score *= min(max(max(rewrite, j.eps) / max(own, j.eps), j.lo), j.hi) ** j.exponent
    return score


def plain_quality(stage, requests, kind):
    """nDCG@10 of each request."""
    found = []
    for i in range(len(requests.group)):
        there = np.flatnonzero(requests.valid[i])
        y = None if kind is None else requests.under_rewrite[kind]["s"][i]
        absent = y is None or np.isnan(y).any()
        query = requests.under_query
        scores = [plain_score(stage, query["s"][i, d], query["prior"][i, d], None if absent else y[d]) for d in there]
        found.append(plain_ndcg(scores, requests.relevance[i, there].tolist()))
    return np.array(found)


def test_outcome_of_a_stage_is_that_of_plain_python():
    requests = made()
    found = tune(STAGE, requests, grid=GRID, resamples=50)
    none = plain_quality(STAGE, requests, None)
    assert found.quality_without == pytest.approx(none.mean(), abs=1e-12)
    for stage, outcome in ((STAGE, found.base), (found.tuned.stage, found.tuned.chosen)):
        change = {k: plain_quality(stage, requests, k).sum() / none.sum() - 1 for k in requests.kinds}
        assert outcome.gain.value == pytest.approx(change["champion"], abs=1e-12)
        assert {k: e.value for k, e in outcome.loss.items()} == pytest.approx(
            {k: -change[k] for k in ("noise", "contrary")}, abs=1e-12
        )
        assert outcome.worst.value == max(e.value for e in outcome.loss.values())
    assert (found.requests, found.groups, found.settings) == (60, 12, 1 + 1 + 8 * 4)


@pytest.mark.parametrize("budget", [0.06, 0.09, 0.15])
def test_choice_is_the_best_of_all_by_brute_force(budget):
    requests = made()
    found = tune(STAGE, requests, budget=budget, grid=GRID, resamples=400)
    # The bound by another bootstrap: resamples written out, one by one.
    names = sorted(set(requests.group))
    by_group = np.array([[g == name for g in requests.group] for name in names], float)
    rng = np.random.default_rng(0)
    rng.permutation(len(names))  # the folds are drawn first
    weights = rng.poisson(1.0, (400, len(names)))
    none = by_group @ plain_quality(STAGE, requests, None)
    best = (-1.0, None)
    for lo, hi, share, scale in itertools.product(GRID.lo, GRID.hi, GRID.share, GRID.eps):
        stage = STAGE.model_copy(
            update={"rewrite": (RewriteSignal(signal="s", lo=lo, hi=hi, exponent=share, eps=0.03 * scale),)}
        )
        sums = {k: by_group @ plain_quality(stage, requests, k) for k in requests.kinds}
        worst = [max(1 - (w @ sums[k]) / (w @ none) for k in ("noise", "contrary")) for w in weights]
        gain = sums["champion"].sum() / none.sum() - 1
        if np.percentile(worst, 97.5) <= budget and gain > best[0] + 1e-12:
            best = (gain, stage)
    assert found.tuned.chosen.gain.value == pytest.approx(max(best[0], 0.0), abs=1e-10)
    assert found.tuned.chosen.gain.value > 0, "a case in which something may be chosen"
    assert found.tuned.chosen.worst.high <= budget


def test_bound_and_not_just_the_loss_is_within_the_budget_and_more_budget_gains_no_less():
    found = tune(STAGE, made(seed=3), budget=0.07, grid=GRID, resamples=200)
    assert [t.budget for t in found.curve] == [0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2]
    assert found.tuned in found.curve
    for t in found.curve:
        assert t.chosen.worst.high <= t.budget
    gains = [t.chosen.gain.value for t in found.curve]
    assert gains == sorted(gains)
    assert gains[-1] > 0


def test_nothing_allowed_is_no_rewriter_with_exact_zeros():
    harmful = made()
    harmful = TuningRequests(
        harmful.group, harmful.relevance, harmful.valid, harmful.under_query,
        {"champion": harmful.under_rewrite["champion"], "inverse": {"s": np.clip(1 - harmful.relevance / 3, 0, 1)}},
    )  # fmt: skip
    found = tune(STAGE, harmful, budget=0.0, grid=GRID, resamples=100)
    assert [j.exponent for j in found.tuned.stage.rewrite] == [0.0]
    outcome = found.tuned.held_out
    assert (outcome.gain.value, outcome.worst.value, outcome.worst.low, outcome.worst.high) == (0.0, 0.0, 0.0, 0.0)


def test_held_out_figures_do_not_see_the_fold():
    """Cross-validation by hand: choose on the other folds' requests alone, apply to the fold."""
    requests, folds = made(seed=7), 3
    found = tune(STAGE, requests, budget=0.1, grid=GRID, folds=folds, resamples=300)
    assert len(set(found.tuned.fold_stages)) > 1, "a case in which it matters whose stage a fold gets"
    names = sorted(set(requests.group))
    rng = np.random.default_rng(0)
    fold = dict(zip(names, rng.permutation(np.arange(len(names)) % folds), strict=True))
    champion, none = np.zeros(60), plain_quality(STAGE, requests, None)
    for k, stage in enumerate(found.tuned.fold_stages):
        inside = np.array([fold[g] == k for g in requests.group])
        champion[inside] = plain_quality(stage, requests, "champion")[inside]
    assert found.tuned.held_out.gain.value == pytest.approx(champion.sum() / none.sum() - 1, abs=1e-12)
    # Turn the relevance of fold 0 upside down: what is chosen without it stays.
    inside = np.array([fold[g] == 0 for g in requests.group])
    turned = np.where(inside[:, None], 3 - requests.relevance, requests.relevance)
    other = TuningRequests(requests.group, turned, requests.valid, requests.under_query, requests.under_rewrite)
    again = tune(STAGE, other, budget=0.1, grid=GRID, folds=folds, resamples=300)
    assert again.tuned.fold_stages[0] == found.tuned.fold_stages[0]
    assert again.tuned.chosen != found.tuned.chosen


def test_order_of_requests_documents_and_kinds_changes_nothing():
    requests = made()
    rng = np.random.default_rng(9)
    rows, columns = rng.permutation(60), rng.permutation(14)

    def moved(x):
        return x[rows][:, columns]

    other = TuningRequests(
        tuple(requests.group[i] for i in rows), moved(requests.relevance), moved(requests.valid),
        {n: moved(x) for n, x in requests.under_query.items()},
        {k: {"s": moved(requests.under_rewrite[k]["s"])} for k in ("contrary", "champion", "noise")},
    )  # fmt: skip
    one, two = (tune(STAGE, r, budget=0.05, grid=GRID, resamples=100) for r in (requests, other))
    assert one.tuned.stage == two.tuned.stage
    assert one.tuned.fold_stages == two.tuned.fold_stages
    assert one.tuned.held_out.gain.value == pytest.approx(two.tuned.held_out.gain.value, abs=1e-12)
    assert one.tuned.held_out.worst.high == pytest.approx(two.tuned.held_out.worst.high, abs=1e-12)


def test_qualities_with_ties_pads_and_nothing_relevant():
    rng = np.random.default_rng(2)
    scores = np.log(rng.integers(1, 6, (3, 40, 25)))  # many ties
    scores[:, :, 20:] = -np.inf
    scores[:, 0, 4:] = -np.inf
    relevance = rng.choice([0.0, 0.0, 0.0, 0.0, 1.0, 3.0], (40, 25)) * (scores[0] > -np.inf)
    relevance[1] = 0
    ndcg, rr = ndcg10(scores, relevance), reciprocal_rank(scores, relevance)
    for k, i in itertools.product(range(3), range(40)):
        assert ndcg[k, i] == pytest.approx(plain_ndcg(scores[k, i].tolist(), relevance[i].tolist()), abs=1e-12)
        ranked = sorted(range(25), key=lambda d: (-scores[k, i, d], d))
        hits = [1 / (n + 1) for n, d in enumerate(ranked) if relevance[i, d] > 0]
        assert rr[k, i] == (hits[0] if hits else 0.0)


def test_every_setting_is_a_valid_stage_and_several_signals_are_sampled():
    two = StageSpec(
        original=(OriginalSignal(signal="a", eps=0.01, exponent=0.6), OriginalSignal(signal="b", eps=0.01)),
        rewrite=(RewriteSignal(signal="a", exponent=0.3), RewriteSignal(signal="c", relative_to="constant", n=0.4)),
    )
    tried = build_stages(two, Grid(), 500, 0)
    assert 400 < len(tried) <= 502
    assert tried[0].rewrite[0].exponent == tried[0].rewrite[1].exponent == 0.0
    assert tried[1] == two
    for stage in tried:
        StageSpec.model_validate(stage.model_dump())
        a, c = stage.rewrite
        assert 0 < a.lo <= 1 <= a.hi
        assert 0 <= a.exponent <= 0.3
        assert (c.relative_to, c.n) == ("constant", 0.4)
    assert sorted({s.rewrite[0].exponent for s in tried}) == pytest.approx([0.0, 0.06, 0.12, 0.21, 0.3])
    assert len({(s.rewrite[0].exponent == 0, s.rewrite[1].exponent == 0) for s in tried}) == 4, "each alone, both, none"
    assert build_stages(two, Grid(), 500, 0) == tried
    assert len(build_stages(two, Grid((0.5,), (2.0,), (0.5,), (1.0,)), 500, 0)) == 2 * 2 + 1


def test_refusals():
    requests = made()
    with pytest.raises(ValueError, match=r"budget -0\.1 must be at least 0"):
        tune(STAGE, requests, budget=-0.1)
    with pytest.raises(ValueError, match="there are 12"):
        tune(STAGE, requests, folds=13)
    with pytest.raises(ValueError, match="no rewrite signal to tune"):
        tune(StageSpec(original=STAGE.original), requests)
    with pytest.raises(ValueError, match=r"lo 1\.5 must be at most 1"):
        tune(STAGE, requests, grid=Grid(lo=(1.5,)))
    with pytest.raises(ValueError, match="at least one broken kind"):
        TuningRequests(("u",), np.ones((1, 1)), np.ones((1, 1), bool), {}, {"champion": {}})
    other = TuningRequests(
        requests.group, requests.relevance, requests.valid, {"s": requests.under_query["s"]},
        {k: {} if k == "noise" else signals for k, signals in requests.under_rewrite.items()},
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"query\.prior, rewrite\.noise\.s of the stage are not among"):
        tune(STAGE, other)
    nothing = TuningRequests(
        requests.group, 0 * requests.relevance, requests.valid, requests.under_query, requests.under_rewrite
    )
    with pytest.raises(ValueError, match="no request has a relevant document"):
        tune(STAGE, nothing, grid=GRID)


def test_broken_rewrites_are_the_others_rewrites():
    rewrites = [f"r{i % 30}" for i in range(60)] + ["r7", None]
    groups = [i % 5 for i in range(62)]
    categories = [i % 3 for i in range(61)] + ["alone"]
    made = broken_rewrites(rewrites, groups, categories, seed=1)
    assert sorted(made["shuffled"], key=str) == sorted(rewrites, key=str)
    assert made["shuffled"] != rewrites
    for c in range(3):
        members = [i for i in range(61) if categories[i] == c]
        assert sorted(made["shuffled_in_category"][i] for i in members) == sorted(rewrites[i] for i in members)
    assert made["shuffled_in_category"][61] is None
    assert made["previous"] == [None] * 5 + rewrites[:57]
    assert made["commonest"] == ["r7"] * 62
    distinct = broken_rewrites([f"d{i}" for i in range(20)], [0] * 20, [0] * 20, seed=2)
    assert all(distinct[k][i] != f"d{i}" for k in ("shuffled", "shuffled_in_category") for i in range(20))


def table_of(requests):
    """One row per (request, document), shuffled."""
    rows = []
    for i, d in zip(*np.nonzero(requests.valid), strict=True):
        row = {"request_id": f"q{i:03d}", "document_id": f"d{d:02d}", "group": requests.group[i],
               "relevance": requests.relevance[i, d]}  # fmt: skip
        row |= {f"query.{'relevance' if n == 's' else n}": x[i, d] for n, x in requests.under_query.items()}
        for kind, signals in requests.under_rewrite.items():
            value = float(signals["s"][i, d])
            row[f"rewrite.{kind}.relevance"] = None if math.isnan(value) else value
        rows.append(row)
    np.random.default_rng(0).shuffle(rows)
    return pa.Table.from_pylist(rows)


def test_parquet_gives_the_requests_back(tmp_path):
    requests = made()
    pq.write_table(table_of(requests), tmp_path / "r.parquet")
    read = read_requests(tmp_path / "r.parquet")
    assert read.group == requests.group
    np.testing.assert_array_equal(read.valid, requests.valid)
    np.testing.assert_array_equal(read.relevance, np.where(requests.valid, requests.relevance, 0))
    np.testing.assert_array_equal(read.under_query["relevance"], np.where(requests.valid, requests.under_query["s"], 0))
    for kind in requests.kinds:
        expected = np.where(requests.valid, requests.under_rewrite[kind]["s"], 0)
        np.testing.assert_array_equal(read.under_rewrite[kind]["relevance"], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["group"]), r"column\(s\) group missing"),
        (lambda t: pa.concat_tables([t, t.slice(0, 1)]), "stands twice in request"),
        (lambda t: t.set_column(2, "group", pa.array([f"g{i}" for i in range(len(t))])), "is in two groups"),
        (lambda t: t.append_column("rewrite.x", t["relevance"]), "'rewrite.x' must be named rewrite.KIND.SIGNAL"),
        (lambda t: t.drop_columns(["rewrite.champion.relevance"]), "needs rewrites of the kind 'champion'"),
        (lambda t: t.append_column("query.bad", t["group"]), "'query.bad' is not numeric"),
        (lambda t: t.set_column(3, "relevance", pa.array([-1.0] * len(t))), "a relevance is negative"),
    ],
)
def test_files_refused(tmp_path, change, message):
    pq.write_table(change(table_of(made(n=6, groups=3))), tmp_path / "r.parquet")
    with pytest.raises(RequestsError, match=message):
        read_requests(tmp_path / "r.parquet")


def test_command_writes_a_spec_that_loads(tmp_path):
    pq.write_table(table_of(made()), tmp_path / "r.parquet")
    arguments = ["fusion", "tune", str(tmp_path / "r.parquet"), "--budget", "0.1", "--out", str(tmp_path / "tuned.yaml")]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "held-out requests" in shown.stdout
    assert "eps" in shown.stdout
    tuned, base = load_spec(tmp_path / "tuned.yaml"), default_spec()
    assert tuned.finerank.rewrite != base.finerank.rewrite
    assert (tuned.finerank.original, tuned.rawrank, tuned.depths) == (base.finerank.original, base.rawrank, base.depths)
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert found["spec_hash"] == tuned.spec_hash
    assert found["tuned"]["chosen"]["worst"]["high"] <= 0.1
    assert set(found["tuned"]["held_out"]["loss"]) == {"noise", "contrary"}
    assert found["tuned"]["rewrite"] == [j.model_dump(mode="json") for j in tuned.finerank.rewrite]


def test_command_says_what_is_wrong(tmp_path):
    result = CliRunner().invoke(app, ["fusion", "tune", str(tmp_path / "none.parquet")])
    assert result.exit_code == 1
    assert "none.parquet" in result.stderr


@pytest.mark.skipif(not CAST.is_dir(), reason="the conversations are not there (../shared/data/cast)")
def test_real_conversations_keep_the_gain_at_half_the_damage():
    spec = importlib.util.spec_from_file_location("benchmark_tune", ROOT / "benchmarks" / "tune.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    requests = benchmark.cast_requests()
    assert (requests.relevance.shape[0], len(set(requests.group))) == (239, 26)
    few = Grid(lo=(0.9, 0.95), hi=(4.0, 8.0), share=(0.35, 0.5), eps=(1.0, 3.0))
    found = tune(benchmark.cast_stage(dense=False), requests, budget=0.1, grid=few, quality=reciprocal_rank)
    # The untuned spec: about the figures of the design, +12 % and -9 %.
    assert 0.09 < found.base.gain.value < 0.16
    assert 0.04 < found.base.worst.value < 0.11
    assert found.tuned.chosen.worst.high <= 0.1
    assert found.tuned.held_out.gain.value > 0.1
    assert found.tuned.held_out.worst.value < found.base.worst.value - 0.01
