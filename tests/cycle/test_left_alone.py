"""A cycle among others who change things: rollbacks, overrides, garbage collection, settings, a journal removed."""

import json
import shutil
from datetime import timedelta
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.cycle.begin import begin_cycle
from corewrite.cycle.context import CycleContext
from corewrite.cycle.decision_log import decide_once
from corewrite.cycle.present_ranker import PresentRanker
from corewrite.cycle.promotion import GatedPromotion
from corewrite.cycle.records import PROBE, RELEVANCE, TRAIN, RankerHashes
from corewrite.cycle.run import run_cycle
from corewrite.cycle.status import cycle_status
from corewrite.cycle.steps import recover as recover_step
from corewrite.cycle.steps import refresh, validate_ranker
from corewrite.cycle.steps.champion_holds import champion_holds
from corewrite.cycle.steps.decide import decide_candidate
from corewrite.cycle.steps.fit_relevance import refit
from corewrite.cycle.steps.recover import is_usable, recover, rollback_ranker
from corewrite.cycle.steps.rollout import load_rollout
from corewrite.cycle.steps.validate_ranker import ValidatedRanker, probe_ranker
from corewrite.cycle.weeks import CycleError, weekly_logs
from corewrite.deployment import load
from corewrite.gate import GateConfig
from corewrite.registry import Candidate, Registry
from corewrite.storage.journal import Journal


def saved(registry, kind, text):
    return registry.save(kind, lambda folder: (folder / "a.txt").write_text(text) and None, {}).hash


def triple(registry, policy, relevance="r", spec="s"):
    return Candidate(saved(registry, "policy", policy), saved(registry, "relevance", relevance), saved(registry, "spec", spec))


def promoted(config, policy, evidence=None, **parts):
    registry = Registry(config.run / "registry")
    now = registry.champion()
    new = triple(registry, policy, **parts)
    return registry.promote(new, expected=now.version if now else None, reason="better", evidence=evidence or {})


def begun(config, week, steps, refit=refit):
    return begin_cycle(config, week, steps=steps, refit=refit, promotion=GatedPromotion())


def finished(config, week, settings="s", **changed):
    journal = Journal(config.run / "cycles" / week)
    record = {"week": week, "verdict": "hold", "relevance_fitted": False, "recovered": False, "mitigations": [], **changed}
    journal.once("start", lambda: {"settings": settings, "champion": None, "mitigations": [], "holds": 0})
    journal.once("record", lambda: record)
    return record


def test_a_cycle_begun_anew_decides_anew(settings, steps):
    config = settings()
    promoted(config, "old")
    registry = Registry(config.run / "registry")
    new = triple(registry, "new")

    def hold(evidence):
        return registry.record("hold", new, "unclear", evidence)

    cycle = begun(config, "w2", steps)
    first = decide_once(cycle, "candidate", hold)
    assert decide_once(begun(config, "w2", steps), "candidate", hold) == first, "killed and gone on with"
    shutil.rmtree(cycle.journal.folder)  # as the message about other settings says
    assert decide_once(begun(config, "w2", steps), "candidate", hold).number == first.number + 1


def decide(config, steps, monkeypatch, champion, gate):
    cycle = begun(config, "w2", steps)
    registry = cycle.registry
    ranker = ValidatedRanker(saved(registry, "relevance", "r"), saved(registry, "spec", "s"), champion, True, ())
    for step, result in ((RELEVANCE, {"fitted": False}), (TRAIN, {"provenance": {}})):
        cycle.journal.once(step, lambda result=result: result)
    monkeypatch.setattr(recover_step, "summarise_traffic", lambda cycle: {})
    candidate = saved(registry, "policy", "new")
    return recover(cycle, candidate, ranker, gate, decide_candidate(cycle, candidate, ranker, gate))


@pytest.mark.parametrize("by_hand", ["rollback", "override"])
def test_what_happened_to_the_champion_during_the_cycle_stands(settings, steps, monkeypatch, by_hand):
    config = settings()
    promoted(config, "oldest")
    compared = promoted(config, "old").number
    begun(config, "w2", steps)
    registry = Registry(config.run / "registry")
    if by_hand == "rollback":
        registry.rollback(expected=compared, reason="it hurts")
    else:
        promoted(config, "by hand")
    stands = registry.champion()
    gate = {"verdict": "promote", "reason": "better", "failed": [], "mitigations": []}
    record = decide(config, steps, monkeypatch, compared, gate)
    assert registry.champion() == stands
    assert (record["verdict"], record["policy"]) == ("hold", stands.policy)
    assert "against a champion that has gone since" in record["reason"]
    assert registry.decisions()[-1].verdict == "hold" and load_rollout(config.run) is None


def test_a_new_model_is_not_put_under_another_champion(settings, steps, monkeypatch):
    config = settings()
    promoted(config, "old")
    cycle = begun(config, "w2", steps)
    promoted(config, "by hand")
    new = {"relevance": saved(cycle.registry, "relevance", "r2"), "spec": saved(cycle.registry, "spec", "s")}
    cycle.journal.once(PROBE, lambda: {**new, "changed": True, "accepted": True, "alarms": []})
    with pytest.raises(CycleError, match=r"the champion was changed under the cycle of 'w2' .* begin anew"):
        validate_ranker.validate_ranker(cycle, None, RankerHashes(**new))


def test_going_back_to_what_a_rollback_has_put_back_already(settings, steps):
    config = settings()
    back = promoted(config, "old").candidate
    suspected = promoted(config, "old", relevance="r2").candidate
    cycle = begun(config, "w2", steps)
    cycle.registry.rollback(expected=2, reason="it hurts")
    record = {"verdict": "reject", "relevance": suspected.relevance, "spec": suspected.spec, "failed": [], "alarms": []}
    found = rollback_ranker(cycle, record, RankerHashes(back.relevance, back.spec))
    assert found["recovered"] and cycle.registry.champion().relevance == back.relevance
    assert cycle.registry.decisions()[-1].quarantined == ("relevance", suspected.relevance)


def test_what_gc_removed_or_somebody_barred_is_nothing_to_go_back_to(settings, steps):
    config = settings()
    parts = [promoted(config, "p", relevance=f"r{k}").candidate for k in range(5)]
    cycle = begun(config, "w2", steps)
    records = [{"relevance": c.relevance, "spec": c.spec} for c in parts]
    assert all(is_usable(cycle, r) for r in records)
    cycle.registry.quarantine("relevance", parts[3].relevance, "by hand")
    cycle.registry.gc(keep=2, grace=timedelta(0))
    assert [is_usable(cycle, r) for r in records] == [False, False, True, False, True]


def test_a_rollout_that_a_killed_cycle_still_owes_is_begun_by_the_next_one(settings, steps):
    config = settings()
    before = promoted(config, "old")
    Journal(config.run / "cycles" / "w1").once("start", lambda: {})
    new = promoted(config, "new", {"cycle": "w1", "step": "candidate"})
    begun(config, "w2", steps)
    state = load_rollout(config.run)[0]
    assert (state.champion, state.previous) == (new.number, before.number)
    again = promoted(config, "new", {"cycle": "w2", "step": "settle"}, relevance="r2")
    begun(config, "w3", steps)
    state = load_rollout(config.run)[0]
    assert (state.champion, state.previous) == (again.number, before.number)


def test_a_rollout_that_was_taken_away_by_hand_is_not_begun_again(settings, steps):
    config = settings()
    promoted(config, "old")
    promoted(config, "new", {"cycle": "w1", "step": "candidate"})
    finished(config, "w1")
    begun(config, "w2", steps)
    assert load_rollout(config.run) is None


def test_champions_that_gc_removed_are_no_bar(settings, monkeypatch):
    config = settings()
    policies = [promoted(config, text).candidate.policy for text in "abcd"]
    registry = Registry(config.run / "registry")
    registry.gc(keep=2, grace=timedelta(0))
    monkeypatch.setattr(load, "load_rewriter", lambda folder: folder.name)
    records = [{"policy": p} for p in (None, *policies, policies[2])]
    assert load.recent_champions(registry, records, policies[3]) == [policies[2]]
    assert load.first_champion(registry, policies[3]) is None


def test_the_first_champion_is_where_the_lineage_began(settings, monkeypatch):
    config = settings()
    policies = [promoted(config, text).candidate.policy for text in "ab"]
    registry = Registry(config.run / "registry")
    monkeypatch.setattr(load, "load_rewriter", lambda folder: folder.name)
    assert load.first_champion(registry, policies[1]) == policies[0]
    assert load.first_champion(registry, policies[0]) is None


def test_a_finished_week_is_told_whatever_the_settings_are_now(settings, steps):
    config = settings()
    record = finished(config, "w1", settings="others")
    assert run_cycle(config, "w1", steps=steps) == record


def test_the_relevance_model_of_a_champion_that_no_cycle_made_is_refreshed_too(settings, steps):
    config = settings()
    promoted(config, "by corewrite train")
    finished(config, "w1")
    assert begun(config, "w2", steps).plan["relevance_due"]


def test_a_week_that_a_later_one_has_overtaken_is_not_to_be_gone_on_with(settings):
    config = settings()
    Journal(config.run / "cycles" / "w0").once("start", lambda: {})
    assert list(cycle_status(config)["unfinished"]) == ["w0"]
    finished(config, "w1")
    Journal(config.run / "cycles" / "w2").once("start", lambda: {})
    assert list(cycle_status(config)["unfinished"]) == ["w2"]


def test_a_folder_without_a_log_is_no_week_and_half_a_file_no_log(settings, tmp_path):
    logs = tmp_path / "logs"
    for name in ("w1", "lost+found"):
        (logs / name).mkdir(parents=True)
    for name in ("a.ndjson", "b.ndjson.gz", ".partial-c.ndjson", "d.txt"):
        (logs / "w1" / name).write_text("")
    found = weekly_logs(logs)
    assert {week: [p.name for p in files] for week, files in found.items()} == {"w1": ["a.ndjson", "b.ndjson.gz"]}


@pytest.mark.parametrize("path", ["x/../run/frozen.parquet", "link/frozen.parquet"])
def test_no_way_round_leads_the_frozen_set_into_the_run(settings, tmp_path, path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(ValueError, match="keep the evaluation set apart"):
        settings(frozen=tmp_path / path)


def test_too_few_users_cannot_say_that_the_champion_holds():
    some = [SimpleNamespace(user_id=f"u{i % 5}") for i in range(30)]
    assert champion_holds(None, some, None, None, None, GateConfig(), max_new_tokens=8) == [
        "too few users can say whether the champion holds: 5 users; 40 are needed"
    ]


def test_the_champion_is_validated_under_the_frozen_margins(settings, steps, monkeypatch):
    config = settings()
    promoted(config, "old")
    cycle = begun(config, "w2", steps)
    cycle.journal.once(RELEVANCE, lambda: {"relevance": "r2", "fitted": True})
    frozen, asked = GateConfig(seed=7), []
    monkeypatch.setattr(type(config), "gate", property(lambda self: frozen))
    monkeypatch.setattr(validate_ranker, "champion_holds", lambda *args, **kwargs: asked.append(args) or ["no"])
    monkeypatch.setattr(validate_ranker, "probe", lambda *args: SimpleNamespace(findings=()))
    monkeypatch.setattr(validate_ranker, "asdict", lambda found: {})
    monkeypatch.setattr(validate_ranker, "random_pairs", lambda *args, seed: (SimpleNamespace(advice="raise eps"),))
    for name in ("deployment", "policy"):
        monkeypatch.setattr(CycleContext, name, lambda self, *args: SimpleNamespace(reward=None))
    monkeypatch.setattr(CycleContext, "present_ranker", PresentRanker(None))
    monkeypatch.setattr(CycleContext, "judge", None)
    window = SimpleNamespace(instances=list, for_gate=lambda limit: [])
    found = probe_ranker(cycle, window, RankerHashes("r2", "s2"))
    assert found["refused"] == {"relevance": "r2", "spec": "s2"}
    assert found["alarms"][0] == "raise eps" and "stays: no" in found["alarms"][1], "the refusal is the last"
    assert frozen in asked[0]


def test_a_relevance_model_that_cannot_be_fitted_or_scores_no_number_leaves_the_champions(settings, steps, monkeypatch):
    def too_little(*_):
        raise ValueError("bring a longer log")

    config = settings()
    decision = promoted(config, "old")
    cycle = begun(config, "w2", steps, too_little)
    cycle.plan["relevance_due"] = True
    monkeypatch.setattr(refresh, "build_impressions", lambda *_: None)
    fitted = cycle.journal.once(RELEVANCE, lambda: refresh.refresh_relevance(cycle, lambda done, total: None))
    champion = decision.candidate
    assert (fitted["relevance"], fitted["fitted"]) == (champion.relevance, False)
    window = SimpleNamespace(instances=list)
    monkeypatch.setattr(CycleContext, "deployment", lambda *_: SimpleNamespace(reward=None))
    monkeypatch.setattr(CycleContext, "present_ranker", PresentRanker(None))
    found = probe_ranker(cycle, window, RankerHashes(fitted["relevance"], champion.spec))
    assert found["accepted"] and not found["changed"]
    assert found["alarms"] == ["the relevance model could not be fitted, the champion's stays: bring a longer log"]

    monkeypatch.setattr(validate_ranker, "probe", too_little)
    refused = probe_ranker(cycle, window, RankerHashes(saved(cycle.registry, "relevance", "new"), champion.spec))
    assert not refused["accepted"] and refused["relevance"] == champion.relevance and "bring a longer" in refused["alarms"][-1]


@pytest.mark.parametrize(("verdict", "code"), [("promote", 0), ("hold", 3), ("reject", 4)])
def test_exit_codes_and_status_of_the_command(settings, tmp_path, verdict, code):
    config, file = settings(), tmp_path / "corewrite.yaml"
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json(exclude_defaults=True))))
    finished(config, "w1", verdict=verdict, reason="so it is", alarms=["look here"])
    Journal(config.run / "cycles" / "w2").once("start", lambda: {})

    def told(*args):
        return CliRunner().invoke(app, ["cycle", *args, "-c", str(file)], catch_exceptions=False)

    ran = told("run", "--week", "w1", "--json")
    assert (ran.exit_code, json.loads(ran.stdout)["verdict"]) == (code, verdict)
    assert told("run", "--week", "w0").exit_code == 1
    status = told("status")
    assert status.exit_code == 0 and "champion   none yet" in status.stdout
    for line in ("unfinished w2: start done", f"w1           {verdict:<8} so it is", "ALARM    look here"):
        assert line in status.stdout
