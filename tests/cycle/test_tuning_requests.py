"""Requests to tune on, from a finished week: what stands in them is what the ranker would see."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.cycle.finished_week import FinishedWeek
from corewrite.cycle.run import run_cycle
from corewrite.cycle.spec_file import write_spec
from corewrite.cycle.weeks import CycleError
from corewrite.deployment.load import load_policy
from corewrite.deployment.served import served_rewrites
from corewrite.domain import Query
from corewrite.fusion import FusionSpec, default_spec, evaluate_stage
from corewrite.registry import Candidate
from corewrite.studies.ungated import UngatedPromotion
from corewrite.tuning.data import CHAMPION
from corewrite.tuning.files import read_requests
from corewrite.tuning.quality import ndcg10
from corewrite.tuning.requests import build_requests, log_requests, nearest_other


def test_a_finished_week_gives_requests_that_can_be_tuned_on(settings, steps, tmp_path):
    config = settings()
    run_cycle(config, "w1", steps=steps, promotion=UngatedPromotion())
    file, out = tmp_path / "corewrite.yaml", tmp_path / "deep" / "requests.parquet"
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json(exclude_defaults=True))))
    asked = ["fusion", "requests", "-c", str(file), "--limit", "60", "--out", str(out), "--json"]
    found = CliRunner().invoke(app, asked, catch_exceptions=False)
    about = json.loads(found.stdout)
    assert found.exit_code == 0 and about["week"] == "w1" and about["rows"] == len(pq.read_table(out))
    assert about["kinds"] == [CHAMPION, "shuffled", "previous", "commonest", "distractor", "worst_of_16"]

    week = FinishedWeek(config, None)
    instances = week.window.for_gate(60)
    read, cascade, stage = read_requests(out), week.deployment.cascade, week.deployment.spec.finerank
    by_id = dict(zip(sorted(x.instance_id for x in instances), range(len(instances)), strict=True))
    assert about["requests"] == len(instances) == len(read.group)
    policy = load_policy(week.registry, week.champion.policy)
    rewrites = served_rewrites(policy, [x.query for x in instances], max_new_tokens=config.pipeline.max_new_tokens)
    for x, rewrite in list(zip(instances, rewrites, strict=True))[:12]:
        i = by_id[x.instance_id]
        assert read.group[i] == x.user_id
        # The ranker's own scores of the same candidates come out of what stands in the file.
        trace = cascade.trace([x.query.text], [None]).finerank
        ids = np.array([week.documents.id_at(r) for r in trace.rows[0]])
        order, n = np.argsort(ids), int(read.valid[i].sum())
        under = {name: v[i : i + 1, :n] for name, v in read.under_query.items()}
        plain = evaluate_stage(stage, under, None, valid=read.valid[i : i + 1, :n])
        np.testing.assert_allclose(plain.log_score[0], trace.fusion.log_score[0][order], atol=1e-12)
        np.testing.assert_allclose(read.relevance[i, :n], week.judge.grade([x.query], trace.rows)[0][order], atol=1e-12)
        champion = read.under_rewrite[CHAMPION]["relevance"][i, :n]
        if rewrite is None or rewrite == x.query.text:
            assert np.isnan(champion).all()
        else:
            own = cascade.signals["relevance"].score([rewrite], trace.rows)[0]
            np.testing.assert_allclose(champion, own[order], atol=1e-12)

    tuned = CliRunner().invoke(app, ["fusion", "tune", str(out), "--json"], catch_exceptions=False)
    assert tuned.exit_code == 0, tuned.output
    assert json.loads(tuned.stdout)["requests"] == len(instances)
    with pytest.raises(CycleError, match="'w9' is no finished week"):
        log_requests(config, "w9", 60, steps=steps)

    now, bare = week.champion, stage.model_copy(update={"rewrite": ()})
    spec = FusionSpec.model_validate(week.deployment.spec.model_copy(update={"finerank": bare}).model_dump(mode="json"))
    saved = week.registry.save("spec", lambda folder: write_spec(folder, spec), {})
    triple = Candidate(now.policy, now.relevance, saved.hash)
    week.registry.promote(triple, expected=now.version, reason="a test needs it", evidence={})
    with pytest.raises(CycleError, match="no rewrite signal to tune"):
        log_requests(config, None, 60, steps=steps)


class _Scorer:
    """Relevance of row r to a text of n words: r / (n + 1)."""

    def score(self, texts, rows):
        return np.array([len(t.split()) + 1.0 for t in texts])[:, None] ** -1 * (rows + 0.1) / 10


class _Cascade:
    """Three candidates, the third missing for the second search."""

    def __init__(self, spec):
        self.spec, self.signals = spec, {"relevance": _Scorer()}

    def embed(self, texts):
        return np.array([[len(t), 1.0] for t in texts], np.float32)

    def trace(self, texts, rewrites):
        rows = np.array([[0, 1, 2], [0, 1, -1]])
        stage = type("S", (), {"rows": rows})
        return type("T", (), {"finerank": stage})

    def under_query(self, stage, texts, rows):
        return {"relevance": self.signals["relevance"].score(texts, rows), "prior": np.ones(rows.shape)}


def test_the_worst_sample_is_the_one_that_ranks_worst():
    cascade, queries = _Cascade(default_spec()), [Query("a b"), Query("c")]
    kinds = {CHAMPION: ["x", None], "shuffled": ["y", "c"]}
    samples = [["p", "q"], ["p q r s", None], ["a b", "q q"]]
    requests, rows = build_requests(cascade, queries, ["u", "v"], kinds, samples, lambda r: (r == 0).astype(float))
    assert requests.valid.tolist() == [[True] * 3, [True, True, False]] and rows.shape == (2, 3)
    # No rewrite, and the query itself, are none.
    assert np.isnan(requests.under_rewrite["shuffled"]["relevance"]).all(1).tolist() == [False, True]
    stage, quality = cascade.spec.finerank, []
    for texts in samples:
        absent = np.array([t is None or t == q.text for t, q in zip(texts, queries, strict=True)])[:, None]
        y = np.where(absent, np.nan, cascade.signals["relevance"].score([t or "" for t in texts], rows))
        quality.append(ndcg10(evaluate_stage(stage, requests.under_query, {"relevance": y}, valid=requests.valid).log_score,
                              requests.relevance))  # fmt: skip
    worst = requests.under_rewrite["worst_of_3"]["relevance"]
    chosen = ndcg10(
        evaluate_stage(stage, requests.under_query, {"relevance": worst}, valid=requests.valid).log_score, requests.relevance
    )
    np.testing.assert_array_equal(chosen, np.min(quality, axis=0))


def test_the_nearest_query_with_another_rewrite():
    cascade = _Cascade(default_spec())
    queries = [Query("aa"), Query("aaa"), Query("a" * 9), Query("a" * 8)]
    # The longest vector is nearest by the product; its own rewrite, and equal ones, do not count.
    assert nearest_other(cascade, queries, ["x", "x", "y", None]) == ["y", "y", "a" * 8, "y"]
    assert nearest_other(cascade, queries, ["x"] * 4) == [None] * 4
