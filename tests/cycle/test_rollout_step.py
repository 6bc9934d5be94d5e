"""The rollout on disk: what it goes back to, and that it goes on when the champion's relevance model or spec changes."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.cycle.begin import _hash_settings
from corewrite.cycle.candidate_config import PipelineConfig
from corewrite.cycle.config import CycleConfig
from corewrite.cycle.steps.rollout import (
    RolloutError,
    begin_rollout,
    carry_rollout,
    decision_seconds,
    load_rollout,
    rollout_step,
)
from corewrite.domain import sha256_json
from corewrite.domain.earlier_config import OldConfigWarning
from corewrite.experiment import RolloutConfig
from corewrite.gate import GateConfig, Margins
from corewrite.registry import Candidate, Registry
from corewrite.storage.journal import cycle_lock

CONFIG = RolloutConfig()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def promoted(run: Path, policy: str, relevance: str = "r", spec: str = "s"):
    registry = Registry(run / "registry")

    def saved(kind, text):
        return registry.save(kind, lambda folder: (folder / "a.txt").write_text(text) and None, {}).hash

    now = registry.champion()
    triple = Candidate(saved("policy", policy), saved("relevance", relevance), saved("spec", spec))
    return registry.promote(triple, expected=now.version if now else None, reason="better", evidence={})


def champion(run: Path) -> Candidate:
    found = Registry(run / "registry").champion()
    return Candidate(**found.hashes)


def searches(since: float, users: int, error: float) -> pa.Table:
    """Shadow answers of `users` users, `error` of them failed, in the first hour of the stage."""
    failed = [i < error * users for i in range(users)]
    columns = {
        "user_id": [f"u{i}" for i in range(users)], "arm": ["treatment"] * users, "timestamp": [since + 1.0] * users,
        "gave_up": [False] * users, "error": failed, "neutral": [False] * users,
    }  # fmt: skip
    return pa.table(columns)


def look(run: Path, error: float, users: int = 3_000):
    since = load_rollout(run)[0].since
    return rollout_step(run, searches(since, users, error), observation="tuesday", until=since + 7_200)


def test_a_bad_stage_puts_back_what_was_there(run):
    before = promoted(run, "old")
    begin_rollout(run, promoted(run, "new"), CONFIG)
    assert look(run, error=0.5).kind == "rollback"
    assert champion(run) == before.candidate
    assert look(run, error=0.0).kind == "rollback", "the same observation: the same decision"


@pytest.mark.parametrize("changed", [{"relevance": "r2"}, {"spec": "s2"}, {"relevance": "r2", "spec": "s2"}])
def test_carried_over_it_goes_back_to_the_policy_before_not_to_the_model_before(run, changed):
    before = promoted(run, "old")
    first = promoted(run, "new")
    begin_rollout(run, first, CONFIG)
    look(run, error=0.0, users=10)  # something is seen, not enough
    again = promoted(run, "new", **changed)
    carry_rollout(run, again)
    carry_rollout(run, again)  # killed after it, a cycle says so once more
    state = load_rollout(run)[0]
    assert (state.champion, state.previous, state.since) == (again.number, before.number, decision_seconds(again))
    assert state.treatment.users == 0 and len(state.history) == 1, "what was seen under another ranker does not count"
    since = state.since
    rollout_step(run, searches(since, 3_000, 0.5), observation="wednesday", until=since + 7_200)
    assert champion(run) == before.candidate


def test_a_finished_rollout_is_not_carried(run):
    promoted(run, "old")
    first = promoted(run, "new")
    begin_rollout(run, first, CONFIG)
    look(run, error=0.5)
    carry_rollout(run, promoted(run, "old", relevance="r2"))
    state = load_rollout(run)[0]
    assert (state.status, state.champion) == ("rolled back", first.number)


def test_the_next_policy_while_a_rollout_is_under_way_is_compared_with_what_most_users_have(run):
    before = promoted(run, "old")
    begin_rollout(run, promoted(run, "new"), CONFIG)
    newest = promoted(run, "newest")
    begin_rollout(run, newest, CONFIG)
    state = load_rollout(run)[0]
    assert (state.champion, state.previous, state.stage) == (newest.number, before.number, 0)
    assert look(run, error=0.5).kind == "rollback"
    assert champion(run) == before.candidate


def test_said_twice_a_rollout_begins_once(run):
    promoted(run, "old")
    first = promoted(run, "new")
    begin_rollout(run, first, CONFIG)
    look(run, error=0.0, users=10)
    assert len(begin_rollout(run, first, CONFIG).history) == 1


def test_by_hand_the_champion_is_another_by_now(run):
    promoted(run, "old")
    begin_rollout(run, promoted(run, "new"), CONFIG)
    by_hand = promoted(run, "by hand")
    assert look(run, error=0.5).kind == "rollback"
    assert champion(run) == by_hand.candidate


def test_no_rollout(run):
    promoted(run, "old")
    with pytest.raises(RolloutError, match="one begins where a cycle promotes over a champion"):
        rollout_step(run, searches(0.0, 1, 0.0), observation="x", until=0.0)


def test_a_harm_is_rolled_back_though_a_cycle_is_at_work(run):
    before = promoted(run, "old")
    begin_rollout(run, promoted(run, "new"), CONFIG)
    with cycle_lock(run):
        assert look(run, error=0.5).kind == "rollback"
    assert champion(run) == before.candidate


@pytest.mark.parametrize("changed", [{"policy": "newest"}, {"policy": "new", "relevance": "r2"}])
def test_rolled_back_between_a_promote_and_its_rollout(run, changed):
    """Killed in between, a cycle may find it so: the version that hurt is what nobody is to go back to."""
    before = promoted(run, "old")
    begin_rollout(run, promoted(run, "new"), CONFIG)
    after = promoted(run, **changed)
    assert look(run, error=0.5).kind == "rollback"
    if changed["policy"] == "newest":
        state = begin_rollout(run, after, CONFIG)
        assert (state.champion, state.previous, state.status) == (after.number, before.number, "running")
    else:
        carry_rollout(run, after)
        assert look(run, error=0.0).kind == "rollback", "it is over; the registry follows"
        assert champion(run) == before.candidate


def test_a_look_before_the_log_reaches_the_stage_waits(run):
    promoted(run, "old")
    begin_rollout(run, promoted(run, "new"), CONFIG)
    since = load_rollout(run)[0].since
    found = rollout_step(run, searches(since, 10, 0.0), observation="early", until=since - 900)
    assert (found.kind, found.missing_users) == ("wait", 2_000)


def told(run: Path, *args: str, command: str = "rollout"):
    settings = run.parent / "corewrite.yaml"
    paths = {name: str(run.parent / name / "x") for name in ("documents", "logs", "labels", "frozen")}
    settings.write_text(yaml.safe_dump({"run": str(run), **paths}))
    return CliRunner().invoke(app, ["cycle", command, "-c", str(settings), "--json", *args], catch_exceptions=False)


def test_the_same_file_written_anew_is_looked_at_anew(run):
    promoted(run, "old")
    begin_rollout(run, promoted(run, "new"), CONFIG)
    since, table = load_rollout(run)[0].since, run.parent / "stage.parquet"
    pq.write_table(searches(since, 10, 0.0), table)
    assert told(run, "--searches", str(table), "--until", str(since + 7_200)).exit_code == 0
    pq.write_table(searches(since, 3_000, 0.5), table)
    assert told(run, "--searches", str(table), "--until", str(since + 10_800)).exit_code == 4


@pytest.mark.parametrize(("error", "code"), [(0.5, 4), (0.0, 0)])
def test_of_a_rollout_that_is_over_the_log_is_not_asked(run, error, code):
    promoted(run, "old")
    begin_rollout(run, promoted(run, "new"), CONFIG.model_copy(update={"stages": CONFIG.stages[:1]}))
    kind = look(run, error).kind
    found = told(run, "--log", str(run.parent / "no log at all"))
    assert (found.exit_code, json.loads(found.stdout)["kind"]) == (code, kind) and kind in ("rollback", "complete")


def test_the_earlier_command_works_and_names_the_new_one(run):
    promoted(run, "old")
    begin_rollout(run, promoted(run, "new"), CONFIG)
    since, table = load_rollout(run)[0].since, run.parent / "stage.parquet"
    pq.write_table(searches(since, 10, 0.0), table)
    args = ("--searches", str(table), "--until", str(since + 7_200), "--id", "one look")
    with pytest.warns(OldConfigWarning, match="`corewrite cycle ramp` is `corewrite cycle rollout` now"):
        before = told(run, *args, command="ramp")
    assert (before.exit_code, before.stdout) == (0, told(run, *args).stdout)


def test_a_week_begun_under_the_earlier_name_of_the_settings_goes_on(tmp_path):
    """The hash in the journal is of the settings as they were named when it was written."""
    paths = {name: tmp_path / name / "x" for name in ("run", "documents", "logs", "labels", "frozen")}
    gate = GateConfig(margins=Margins(top_rewrite_share=0.01), required_checks=("fused_reward", "prompt_injection"))
    config = CycleConfig(**paths, rollout=RolloutConfig(alpha=0.01), pipeline=PipelineConfig(gate=gate))
    then = config.model_dump(mode="json", exclude_defaults=True)
    then["ramp"] = then.pop("rollout")
    assert then["ramp"] == {"alpha": 0.01}
    gate = then["pipeline"]["gate"]
    gate["required_checks"] = ["fused_reward", "canaries"]
    gate["margins"]["commonest_rewrite"] = gate["margins"].pop("top_rewrite_share")
    del gate["margins"]["risk_sensitive_ndcg"]  # there was no such check
    assert _hash_settings(config) == sha256_json(then)
