"""The weekly cycle on files: what it leaves, that it goes on after any death, that it keeps apart what must be apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from corewrite.cycle.mined_week import MinedWindow
from corewrite.cycle.run import run_cycle
from corewrite.cycle.status import cycle_status, load_history
from corewrite.cycle.steps import decide, validate_ranker
from corewrite.cycle.steps.fit_relevance import refit
from corewrite.cycle.steps.rollout import load_rollout
from corewrite.cycle.weeks import CycleError, weekly_logs
from corewrite.domain.traffic_split import is_gate_user, is_holdback_user
from corewrite.logs import EvaluationOnlyError, read_instances
from corewrite.registry import Registry
from corewrite.relevance.late_interaction import SCALARS
from corewrite.storage import journal as journal_module
from corewrite.storage.durable import whole_file
from corewrite.storage.journal import Journal, JournalError
from corewrite.studies.ungated import UngatedPromotion


class Killed(BaseException):
    """Not an Exception: nothing on the way may take it for an error and go on."""


def first_champion(config, steps):
    """Run the first cycle; where the gate holds its candidate back, put it there by hand."""
    record = run_cycle(config, "w1", steps=steps)
    registry = Registry(config.run / "registry")
    if registry.champion() is None:
        decision = next(d for d in registry.decisions() if d.candidate is not None)
        registry.promote(decision.candidate, expected=None, reason="a test needs one", evidence={"override": True})
    return record


def decisions(config):
    return [
        (d.verdict, d.candidate and d.candidate.hashes, d.quarantined, d.reason)
        for d in Registry(config.run / "registry").decisions()
    ]


def without_times(record):
    return {k: v for k, v in record.items() if k != "reason"}


def test_two_weeks_and_what_they_leave(settings, steps):
    config = settings()
    with pytest.raises(CycleError, match="needs the week before"):
        run_cycle(config, "w0", steps=steps)
    first = first_champion(config, steps)
    assert first["verdict"] in ("promote", "hold")
    assert first["relevance_fitted"]
    second = run_cycle(config, "w2", steps=steps)
    assert [r["week"] for r in load_history(config.run)] == ["w1", "w2"]
    assert second["provenance"]["code_version"] and second["provenance"]["data_window"]
    assert run_cycle(config, "w2", steps=steps) == second, "a finished cycle is not run again"
    with pytest.raises(CycleError, match="'w0' is out of turn"):
        run_cycle(config, "w0", steps=steps)
    with pytest.raises(CycleError, match="no week 'w9'; there are w0, w1, w2, w3"):
        run_cycle(config, "w9", steps=steps)
    status = cycle_status(config)
    assert status["champion"] is not None and status["unfinished"] == {} and len(status["weeks"]) == 2
    # Training began from the warm start, which is what the first candidate is compared with too.
    moved = {c["name"]: c["candidate"] for c in Journal(config.run / "cycles" / "w1").result("gate")["checks"]}
    assert moved["kl_reference"] > 0 and moved["kl_champion"] is None, "no champion serves yet"
    # A cycle feeds all that the gate requires; what cannot exist yet is not applicable.
    for week, absent in (("w1", {"judge_ndcg_vs_recent", "length_vs_recent", "kl_lineage"}), ("w2", set())):
        checks = Journal(config.run / "cycles" / week).result("gate")["checks"]
        assert not [c["reason"] for c in checks if "was not given" in c["reason"] and c["name"] != "latency"]
        assert {c["name"] for c in checks if "not applicable: there is no" in c["reason"]} >= absent
    # The gate's users are nowhere in what training reads.
    window = MinedWindow(config.run / "windows" / "w2")
    assert window.instances() and not any(is_gate_user(x.user_id) for x in window.instances())
    repaired, good = window.reformulations()
    assert not any(is_gate_user(r.user_id) for r in (*repaired, *good))
    for_gate = window.for_gate(100)
    assert for_gate and all(is_gate_user(x.user_id) and x.evaluation_only for x in for_gate)
    for limit in (15, 30):
        found = window.for_gate(limit)
        assert len(found) <= limit and np.mean([is_holdback_user(x.user_id) for x in found]) >= 1 / 3
    for path in (config.frozen, window.folder / "gate.parquet"):
        with pytest.raises(EvaluationOnlyError):
            read_instances(path)


def test_killed_at_every_write_it_ends_as_one_that_was_not(settings, steps, monkeypatch):
    """Before and after every journal entry and every write of the registry, once each."""
    undisturbed, disturbed = settings("one"), settings("two")
    for config in (undisturbed,):
        first_champion(config, steps)
        wanted = run_cycle(config, "w2", steps=steps)
    first_champion(disturbed, steps)

    killed: set[str] = set()

    def deadly(place, function):
        def call(*args, **kwargs):
            name = place(*args)
            if f"before {name}" not in killed:
                killed.add(f"before {name}")
                raise Killed
            result = function(*args, **kwargs)
            if f"after {name}" not in killed:
                killed.add(f"after {name}")
                raise Killed
            return result

        return call

    monkeypatch.setattr(journal_module, "write_json", deadly(lambda file, value: file.stem, journal_module.write_json))
    for method in ("save", "promote", "record", "quarantine"):
        original = getattr(Registry, method)
        monkeypatch.setattr(Registry, method, deadly(lambda *a, method=method: f"{method} {a[1]!s:.12}", original))
    for _ in range(60):
        try:
            found = run_cycle(disturbed, "w2", steps=steps)
            break
        except Killed:
            continue
    else:
        pytest.fail("it never ended")
    assert len(killed) > 16, "start, mine, relevance, spec, probe, start-policy, train, gate, record, and the registry's"
    assert without_times(found) == without_times(wanted)
    # Latencies are of this run; the rest of what the gate found is the same.
    assert [d[:3] for d in decisions(disturbed)] == [d[:3] for d in decisions(undisturbed)]


def test_the_rollout_follows_what_the_cycle_promotes(settings, steps, monkeypatch):
    """A new model under a policy in rollout, a new policy over it, and a kill between a decision and its rollout."""
    config = settings()
    run_cycle(config, "w1", steps=steps, promotion=UngatedPromotion())
    assert load_rollout(config.run) is None, "the first champion has nobody to be compared with"
    run_cycle(config, "w2", steps=steps, promotion=UngatedPromotion())
    state = load_rollout(config.run)[0]
    promoted = [d.number for d in Registry(config.run / "registry").decisions() if d.verdict == "promote"]
    assert (state.champion, state.previous) == (promoted[-1], promoted[-2])

    def kill(*args, **kwargs):
        raise Killed

    for module, name in ((validate_ranker, "carry_rollout"), (decide, "begin_rollout")):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(module, name, kill)
            run_cycle(config, "w3", steps=steps, promotion=UngatedPromotion())
    run_cycle(config, "w3", steps=steps, promotion=UngatedPromotion())
    after = [d for d in Registry(config.run / "registry").decisions() if d.verdict == "promote" and d.number > promoted[-1]]
    assert [d.reason.startswith("the champion holds") for d in after] == [True, False], "a new model, then a new policy"
    found = load_rollout(config.run)[0]
    assert (found.champion, found.previous) == (after[-1].number, state.previous)


def test_a_cycle_goes_on_under_its_own_settings_only(settings, steps, monkeypatch):
    config = settings()
    monkeypatch.setattr("corewrite.cycle.steps.mine.mine_week", lambda *a, **k: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        run_cycle(config, "w1", steps=steps)
    with pytest.raises(JournalError, match="under other settings"):
        run_cycle(config.model_copy(update={"frozen_queries": 41}), "w1", steps=steps)
    assert cycle_status(config)["unfinished"] == {"w1": ["start"]}


def test_a_cycle_goes_on_with_the_threads_it_began_with(settings, steps, monkeypatch):
    config, used, threads = settings(), [], torch.get_num_threads()

    def mine(*args, **kwargs):
        used.append(torch.get_num_threads())
        raise Killed

    monkeypatch.setattr("corewrite.cycle.steps.mine.mine_week", mine)
    try:
        for count in (threads, threads + 1):
            torch.set_num_threads(count)
            with pytest.raises(Killed):
                run_cycle(config, "w1", steps=steps)
            assert torch.get_num_threads() == count, "afterwards as before"
    finally:
        torch.set_num_threads(threads)
    assert used == [threads, threads]


def saturating(catalogue, seen, seed, progress):
    """A model that ranks worse and pays for what it should not."""
    model = refit(catalogue, seen, seed, progress)
    scalars = model.scalars.copy()
    scalars[SCALARS.index("gain")] *= -1
    return replace(model, scalars=scalars)


def test_a_new_model_that_is_worse_for_the_champion_is_pinned_with_an_alarm(settings, steps):
    config = settings()
    first_champion(config, steps)
    before = Registry(config.run / "registry").champion()
    record = run_cycle(config, "w2", steps=steps, refit=saturating)
    assert before is not None
    assert (record["relevance"], record["spec"]) == (before.relevance, before.spec)
    assert any("the champion's stays" in alarm for alarm in record["alarms"])
    registry = Registry(config.run / "registry")
    refused = [d.quarantined for d in registry.decisions() if d.quarantined and d.quarantined[0] == "relevance"]
    assert len(refused) == 1 and refused[0][1] != before.relevance


def test_the_frozen_set_must_lie_apart(settings, tmp_path: Path):
    with pytest.raises(ValueError, match="keep the evaluation set apart"):
        settings(frozen=tmp_path / "run" / "frozen.parquet")


def test_a_candidate_that_is_damaged_on_disk_is_rejected_not_an_error(settings, steps, monkeypatch):
    config = settings()
    first_champion(config, steps)
    saved = Registry.save

    def damaged(self, kind, write, metadata):
        artifact = saved(self, kind, write, metadata)
        if kind == "policy":
            weights = self.path(artifact) / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1000])
        return artifact

    monkeypatch.setattr(Registry, "save", damaged)
    record = run_cycle(config, "w2", steps=steps)
    assert (record["verdict"], record["failed"]) == ("reject", ["integrity"])
    assert "model.safetensors" in record["reason"]
    assert record["policy"] == Registry(config.run / "registry").champion().policy != record["candidate"]


def test_a_log_that_is_still_being_written_is_no_week(settings, platform, tmp_path: Path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "w1.ndjson").write_text("")
    with pytest.raises(KeyboardInterrupt), whole_file(logs / "w2.ndjson.gz") as file:
        file.write_bytes(b"half")
        assert list(weekly_logs(logs)) == ["w1"]
        raise KeyboardInterrupt
    assert [p.name for p in logs.iterdir()] == ["w1.ndjson"]
    with whole_file(logs / "w2.ndjson.gz") as file:
        file.write_bytes(b"whole")
    assert list(weekly_logs(logs)) == ["w1", "w2"]
