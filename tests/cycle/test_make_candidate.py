"""`make_candidate`, which `corewrite train` and the demo run: the cycle's evaluation, against the champion at the start."""

import dataclasses

import numpy as np
import pytest

from corewrite.cycle import candidate as module
from corewrite.cycle import read_catalogue, read_labels, read_window
from corewrite.cycle.candidate import make_candidate
from corewrite.cycle.incumbent import Incumbent
from corewrite.cycle.kept_start import load_warm_start
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.served import served_rewrites
from corewrite.deployment.settings import RankerSettings
from corewrite.evaluation.searches import OF_A_WARM_START
from corewrite.fusion import default_spec
from corewrite.gate import Absent, GateResult, Verdict, run_gate
from corewrite.registry import Candidate, Registry, RegistryError
from corewrite.relevance import TreeJudge, cold_start
from corewrite.relevance.backends import ScorerUnavailableError
from corewrite.search import top_overlap

PROMOTE = GateResult(Verdict.PROMOTE, "a test says so", 99, 99, ())


@pytest.fixture(scope="module")
def ground(platform):
    """Two windows, a deployment and a judge."""
    catalogue = read_catalogue(platform / "documents.parquet")
    deployment = embedded_deployment(catalogue, cold_start(catalogue, seed=3), default_spec())
    judge = TreeJudge(catalogue)
    judge.fit(read_labels(platform / "labels.parquet", catalogue), seed=3)
    overlap = top_overlap(deployment.cascade)
    earlier = read_window(platform / "logs" / "w0.ndjson", overlap=overlap)
    window = read_window(platform / "logs" / "w1.ndjson", overlap=overlap, thresholds=earlier.outcomes.thresholds)
    return earlier, window, deployment, judge


@pytest.fixture
def run(ground, settings, steps, tmp_path):
    """A run of `make_candidate` on the registry of the test."""
    registry, config = Registry(tmp_path / "registry"), settings().pipeline
    earlier, window, deployment, judge = ground

    def make(seed=0, spec=None):
        under = deployment if spec is None else Deployment(deployment.ranker, spec)
        return make_candidate(
            earlier, window, under, judge, registry, config, tmp_path / f"run-{seed}", seed=seed, steps=steps
        )  # fmt: skip

    return registry, config, make


def test_the_champion_at_the_start_is_what_is_compared_with_and_swapped(run, ground, monkeypatch, tmp_path):
    registry, config, make = run
    gated = []
    monkeypatch.setattr(module, "run_gate", lambda evaluation, _: gated.append(evaluation) or PROMOTE)

    first = make(0)
    assert (first.compared_with, first.decision.verdict, first.decision.previous) == (None, "promote", None)
    assert set(first.evaluation.kl) == {"reference"} and first.evaluation.recent is None
    assert load_warm_start(tmp_path / "run-0").policy_hash == first.warm.policy_hash != first.candidate.policy_hash
    # Nothing of what a cycle's gate looks at is left out.
    (evaluation,) = gated
    assert {"head", "new", "after a query"} <= set(evaluation.slices) and evaluation.slices["head"].any()
    assert len(evaluation.canaries) > 50 and evaluation.original_judge_ndcg is not None
    for side in (evaluation.candidate, evaluation.champion):
        assert side.repair_log_prob is None and np.isfinite(side.log_reward).all()
    # The warm start was fitted to repairs: of all policies it finds them the likeliest.
    assert evaluation.absent["candidate.repair_log_prob"] == OF_A_WARM_START.reason

    # The same run again: the decision stands, compared with what it was compared with.
    again = make(0)
    assert again.decision == first.decision and len(registry.decisions()) == 1
    assert list(again.evaluation.champion.rewrites) == list(first.evaluation.champion.rewrites)

    second = make(1)
    assert second.compared_with == first.decision.candidate.policy != second.decision.candidate.policy
    assert (second.decision.verdict, second.decision.previous) == ("promote", first.decision.number)
    for side in (second.evaluation.candidate, second.evaluation.champion):
        assert np.isfinite(side.repair_log_prob).any()
    queries = [x.query for x in ground[1].instances(ground[2].catalogue, seed=1, for_gate=True)[: config.gate_queries]]
    served = served_rewrites(first.candidate, queries, max_new_tokens=config.max_new_tokens)
    assert list(second.evaluation.champion.rewrites) == [r or "" for r in served]

    # A rollback while the third is trained stands.
    def rolled_back(evaluation, _):
        registry.rollback(expected=second.decision.number, reason="meanwhile")
        return PROMOTE

    monkeypatch.setattr(module, "run_gate", rolled_back)
    third = make(2)
    assert third.compared_with == second.decision.candidate.policy
    assert third.decision.verdict == "hold" and "champion that has gone since" in third.decision.reason
    assert registry.champion().policy == first.decision.candidate.policy
    # It had champions before it, and where they all began, to be compared with too.
    assert third.evaluation.recent is not None and set(third.evaluation.kl) == {"champion", "lineage", "reference"}


def test_a_relevance_model_or_spec_that_the_champion_fails_under_is_held(run, ground, monkeypatch):
    registry, config, make = run
    monkeypatch.setattr(module, "run_gate", lambda *_: PROMOTE)
    first = make(0)
    asked = []
    monkeypatch.setattr(
        "corewrite.cycle.incumbent.champion_holds", lambda *args, **_: asked.append(args) or ["judge_ndcg: it fell"]
    )
    spec = default_spec()
    other = spec.model_copy(update={"depths": spec.depths.model_copy(update={"finerank": 70})})
    second = make(1, spec=other)
    assert (second.decision.verdict, second.gate.verdict) == ("hold", Verdict.PROMOTE)
    assert "the champion does not hold under its relevance model and spec: judge_ndcg: it fell" in second.decision.reason
    (now, new), policy = (asked[0][2].spec, asked[0][3].spec), asked[0][0]
    assert (now, new) == (spec, other) and policy.policy_hash == first.candidate.policy_hash
    assert registry.champion().version == first.decision.number

    # Of a ranker that is gone there are no lists; of one that the settings still name the run is to wait for its answer.
    opener = RankerOpener(RankerSettings(), ground[2].documents)
    incumbent, triple = Incumbent.of(registry), second.decision.candidate

    def unreachable(*_):
        raise ScorerUnavailableError("connection refused")

    monkeypatch.setattr("corewrite.cycle.present_ranker.load_deployment", unreachable)
    monkeypatch.setattr(opener, "is_current", lambda folder: False)
    assert incumbent.problems(registry, triple, [], ground[2], opener, ground[3], config) == ["judge_ndcg: it fell"]
    assert asked[-1][2] is None
    monkeypatch.setattr(opener, "is_current", lambda folder: True)
    with pytest.raises(ScorerUnavailableError, match="connection refused"):
        incumbent.problems(registry, triple, [], ground[2], opener, ground[3], config)
    monkeypatch.undo()
    monkeypatch.setattr(module, "run_gate", lambda *_: PROMOTE)
    monkeypatch.setattr("corewrite.cycle.incumbent.champion_holds", lambda *args, **_: asked.append(args) or ["it fell"])

    # Under the champion's own there is nothing to ask.
    assert make(2).decision.verdict == "promote" and len(asked) == 2


def test_what_is_rejected_is_barred_once(run, monkeypatch):
    registry, _, make = run
    reject = dataclasses.replace(PROMOTE, verdict=Verdict.REJECT, reason="bad")
    monkeypatch.setattr(module, "run_gate", lambda *_: reject)
    first = make(0)
    assert [d.verdict for d in registry.decisions()] == ["reject", "quarantine"]
    assert registry.decisions()[1].quarantined == ("policy", first.decision.candidate.policy)
    assert make(0).decision == first.decision and len(registry.decisions()) == 2
    hold = dataclasses.replace(PROMOTE, verdict=Verdict.HOLD, reason="other margins")
    monkeypatch.setattr(module, "run_gate", lambda *_: hold)
    assert make(0).decision.number == 3, "another verdict is another decision"


def test_the_gate_decides_on_its_own(run):
    """Nothing replaced: the verdict in the registry is the gate's on the very evaluation."""
    registry, config, make = run
    found = make(0)
    assert found.gate == run_gate(found.evaluation, config.gate)
    assert registry.decisions()[0].verdict == found.gate.verdict == found.decision.verdict


def test_an_incumbent_that_cannot_be_loaded_stops_the_run_before_it_trains(run, monkeypatch):
    registry, _, make = run
    monkeypatch.setattr(module, "run_gate", lambda *_: PROMOTE)
    champion = make(0).decision.candidate
    weights = registry.path(registry.artifact("policy", champion.policy)) / "model.safetensors"
    weights.chmod(0o600)
    weights.write_bytes(b"damaged")
    monkeypatch.setattr(module, "run_training", lambda *_, **__: pytest.fail("it trained"))
    with pytest.raises(RegistryError, match=r"model\.safetensors"):
        make(1)


def test_no_champion_no_incumbent(tmp_path):
    registry = Registry(tmp_path / "registry")
    incumbent = Incumbent.of(registry)
    assert (incumbent.champion, incumbent.policy, incumbent.version) == (None, None, None)
    assert incumbent.recent(registry) == []
    assert incumbent.lineage(registry) == Absent("there is no champion yet")
    assert incumbent.before(registry, Candidate("a", "b", "c")) is incumbent
