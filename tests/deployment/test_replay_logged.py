"""Rankings that production logged, checked on a spec: against a formula written out here, which is not the package's."""

import gzip
import json
import math
import random

import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.deployment.replay import ReplayError
from corewrite.deployment.replay_logged import has_rankings, replay_rankings
from corewrite.fusion import parse_spec

SPEC = """\
rawrank: {original: [{signal: relevance, eps: 0.01}]}
finerank:
  original:
    - {signal: relevance, eps: 0.01, exponent: 1.0}
    - {signal: prior, eps: 0.05, top: 2, exponent: 0.3}
  rewrite:
    - {signal: relevance, eps: 0.03, lo: 0.25, hi: 4, exponent: 0.5}
    - {signal: visual, relative_to: constant, n: 0.4, eps: 0.02, lo: 0.5, hi: 3, exponent: 0.25}
"""


def by_formula(x, y, prior=0.3):
    """Factors and score of one document: x under the query, y under the rewrite or None."""
    original = {
        "original.relevance": min(1.0, max(0.01, x["relevance"])),
        "original.prior": min(2.0, max(0.05, x["prior"])) ** prior,
    }
    rewrite = {"rewrite.relevance": 1.0, "rewrite.visual": 1.0}
    if y is not None:
        ratio = max(y["relevance"], 0.03) / max(x["relevance"], 0.03)
        rewrite["rewrite.relevance"] = math.sqrt(min(4, max(0.25, ratio)))
        rewrite["rewrite.visual"] = min(3, max(0.5, max(y["visual"], 0.02) / 0.4)) ** 0.25
    factors = original | rewrite
    return factors, math.prod(factors.values())


def production(searches=200, prior=0.3, scores=True, factors=True, seed=1):
    """Lines of a log; two searches in three have a rewrite. Events and a search without a ranking stand between."""
    rng = random.Random(seed)
    lines = [{"action_name": "item_click", "query_id": "q0"}, {"query_id": "none", "user_query": "x", "query_attributes": {}}]
    for q in range(searches):
        documents = []
        for d in range(10):
            x = {"relevance": rng.random() ** 3, "prior": rng.uniform(0.01, 3)}
            y = {"relevance": rng.random() ** 3, "visual": rng.random()} if q % 3 else None
            documents.append((*by_formula(x, y, prior), f"d{d}", x, y))
        documents.sort(key=lambda one: -one[1])
        ranking = {"signals": {n: [one[3][n] for one in documents] for n in ("relevance", "prior")}}
        if q % 3:
            ranking["rewrite_signals"] = {n: [one[4][n] for one in documents] for n in ("relevance", "visual")}
        if factors:
            ranking["factors"] = {n: [one[0][n] for one in documents] for n in documents[0][0]}
        if scores:
            ranking["scores"] = [one[1] for one in documents]
        lines.append(line(ranking, [one[2] for one in documents], q))
    return lines


def line(ranking, hits, q=0):
    return {
        "query_id": f"q{q}", "client_id": "c", "user_query": "served", "timestamp": "2026-01-01T00:00:00Z",
        "query_response_hit_ids": hits, "query_attributes": {"ranking": ranking},
    }  # fmt: skip


@pytest.fixture
def written(tmp_path):
    def write(lines, name="production.ndjson.gz"):
        with gzip.open(tmp_path / name, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(one) + "\n" for one in lines)
        return tmp_path / name

    return write


def test_a_spec_that_production_ranks_by_is_reproduced(written):
    log = written(production())
    found = replay_rankings(log, parse_spec(SPEC))
    assert has_rankings(log) and found.share_agreeing == 1.0 and found.exponents == {} and found.unchecked == ()
    assert found.searches == found.same_order == 200 and found.passed_over == 2 and found.unusable == {}
    assert found.scores.compared == 2_000 and found.scores.worst < 1e-12
    assert found.by_factor.keys() == by_formula({"relevance": 1, "prior": 1}, None)[0].keys()


def test_the_factor_with_another_exponent_is_named(written):
    found = replay_rankings(written(production(prior=0.5)), parse_spec(SPEC))
    assert [n for n, one in found.by_factor.items() if one.share_agreeing < 1] == ["original.prior"]
    assert found.scores.share_agreeing < 0.2 and found.same_order < 200 and found.share_agreeing < 0.2


def test_it_is_named_from_the_scores_alone_too(written):
    found = replay_rankings(written(production(prior=0.5, factors=False)), parse_spec(SPEC))
    assert found.exponents == {"original.prior": pytest.approx(0.5, abs=1e-6)} and found.by_factor == {}


def test_what_no_exponent_explains_is_not_explained(written):
    lines = production(factors=False)
    rng = random.Random(2)
    for one in lines[2:]:
        scores = one["query_attributes"]["ranking"]["scores"]
        scores[:] = [s * rng.uniform(0.9, 1.1) for s in scores]
    found = replay_rankings(written(lines), parse_spec(SPEC))
    assert found.scores.share_agreeing < 0.01 and found.exponents == {}


def test_tiny_scores_agree_only_where_they_are_the_same(written):
    small = SPEC.replace("{signal: relevance, eps: 0.01, exponent: 1.0}", "{signal: relevance, eps: 1.0e-12, exponent: 1.0}")
    signals = {"relevance": [2e-9, 1e-9], "prior": [1.0, 1.0]}
    for scores, share in (([2e-9, 1e-9], 1.0), ([4e-9, 1e-9], 0.5)):
        found = replay_rankings(written([line({"signals": signals, "scores": scores}, ["a", "b"])]), parse_spec(small))
        assert found.scores.share_agreeing == share


def test_what_cannot_be_recomputed_is_counted_by_reason_and_counts_as_not_reproduced(written):
    good = {"signals": {"relevance": [0.5], "prior": [1.0]}, "scores": [0.5]}
    bad = [
        {**good, "signals": {"relevance": [0.5]}},
        {**good, "signals": {"relevance": [0.5], "prior": [None]}},
        {**good, "scores": [0.5, 0.5]},
        {**good, "signals": {"relevance": ["0.5"], "prior": [1.0]}},
        {"signals": good["signals"]},
    ]
    found = replay_rankings(written([line(one, ["a"]) for one in (good, *bad)]), parse_spec(SPEC))
    reasons = " | ".join(found.unusable)
    assert found.searches == 1 and sum(found.unusable.values()) == 5 and found.share_agreeing == pytest.approx(1 / 6)
    for said in (
        "'prior' of the spec is not in ranking.signals", "'prior' is not a finite number", "scores has another length",
        "ranking.signals.relevance: Input should be a valid number", "neither scores nor factors",
    ):  # fmt: skip
        assert said in reasons
    assert found.unchecked == ("rewrite.relevance", "rewrite.visual")
    with pytest.raises(ReplayError, match=r"'prior' of the spec is not in ranking\.signals"):
        replay_rankings(written([line(bad[0], ["a"])]), parse_spec(SPEC))
    with pytest.raises(ReplayError, match=r"what to log"):
        replay_rankings(written([{"query_id": "q"}]), parse_spec(SPEC))


def test_a_factor_that_the_spec_does_not_have_agrees_nowhere(written):
    ranking = {
        "signals": {"relevance": [0.5], "prior": [1.0]},
        "factors": {"original.relevance": [0.5], "original.fresh": [1.0]},
    }
    found = replay_rankings(written([line(ranking, ["a"])]), parse_spec(SPEC))
    assert {n: one.share_agreeing for n, one in found.by_factor.items()} == {"original.fresh": 0.0, "original.relevance": 1.0}


def call(*args):
    return CliRunner().invoke(app, ["replay", *map(str, args)], catch_exceptions=False, env={"COLUMNS": "200", "TERM": "dumb"})


def test_the_command_goes_by_what_the_log_holds(written, tmp_path):
    (tmp_path / "fusion.yaml").write_text(SPEC, "utf-8")
    config = tmp_path / "corewrite.yaml"
    config.write_text(
        f"run: r\nseed: 1\nranker: {{spec: {tmp_path}/fusion.yaml, signals: {{relevance: {{kind: logged}}}}}}\n", "utf-8"
    )
    log = written(production())
    said = call(log, "--config", config)
    assert said.exit_code == 0 and "rankings of your own engine" in said.stdout and "200 of 200 lists" in said.stdout
    found = json.loads(call(log, "--spec", tmp_path / "fusion.yaml", "--json").stdout)
    assert found["log"] == "ranking" and found["share_agreeing"] == 1.0 and found["scores"]["compared"] == 2_000
    other = written(production(prior=0.31), "other.ndjson.gz")
    said = call(other, "--config", config)
    assert said.exit_code == 1 and "original.prior: the logged scores ask for exponent 0.31" in said.stdout
    nothing = call(log)
    assert nothing.exit_code == 1 and "say which fusion spec it ranks by" in nothing.output
    served = written([{"query_id": "q"}], "neither.ndjson.gz")
    assert "leave --spec out" in call(served, "--spec", tmp_path / "fusion.yaml").output
