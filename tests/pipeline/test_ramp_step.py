"""The ramp on disk: what it goes back to, and that it goes on when the champion's relevance model or spec changes under it."""

from pathlib import Path

import pyarrow as pa
import pytest

from corewrite.experiment import RampConfig
from corewrite.pipeline.ramp_step import RampError, begin_ramp, carry_ramp, ramp_step, read_ramp, seconds_of
from corewrite.registry import Candidate, Registry

CONFIG = RampConfig()


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
    since = read_ramp(run)[0].since
    return ramp_step(run, searches(since, users, error), observation="tuesday", until=since + 7_200)


def test_a_bad_stage_puts_back_what_was_there(run):
    before = promoted(run, "old")
    begin_ramp(run, promoted(run, "new"), CONFIG)
    assert look(run, error=0.5).kind == "rollback"
    assert champion(run) == before.candidate
    assert look(run, error=0.0).kind == "rollback", "the same observation: the same decision"


@pytest.mark.parametrize("changed", [{"relevance": "r2"}, {"spec": "s2"}, {"relevance": "r2", "spec": "s2"}])
def test_carried_over_it_goes_back_to_the_policy_before_not_to_the_model_before(run, changed):
    before = promoted(run, "old")
    first = promoted(run, "new")
    begin_ramp(run, first, CONFIG)
    look(run, error=0.0, users=10)  # something is seen, not enough
    again = promoted(run, "new", **changed)
    carry_ramp(run, again)
    carry_ramp(run, again)  # killed after it, a cycle says so once more
    state = read_ramp(run)[0]
    assert (state.champion, state.previous, state.since) == (again.number, before.number, seconds_of(again))
    assert state.treatment.users == 0 and len(state.history) == 1, "what was seen under another ranker does not count"
    since = state.since
    ramp_step(run, searches(since, 3_000, 0.5), observation="wednesday", until=since + 7_200)
    assert champion(run) == before.candidate


def test_a_finished_ramp_is_not_carried(run):
    promoted(run, "old")
    first = promoted(run, "new")
    begin_ramp(run, first, CONFIG)
    look(run, error=0.5)
    carry_ramp(run, promoted(run, "old", relevance="r2"))
    state = read_ramp(run)[0]
    assert (state.status, state.champion) == ("rolled back", first.number)


def test_the_next_policy_while_a_ramp_is_under_way_is_compared_with_what_most_users_have(run):
    before = promoted(run, "old")
    begin_ramp(run, promoted(run, "new"), CONFIG)
    newest = promoted(run, "newest")
    begin_ramp(run, newest, CONFIG)
    state = read_ramp(run)[0]
    assert (state.champion, state.previous, state.stage) == (newest.number, before.number, 0)
    assert look(run, error=0.5).kind == "rollback"
    assert champion(run) == before.candidate


def test_said_twice_a_ramp_begins_once(run):
    promoted(run, "old")
    first = promoted(run, "new")
    begin_ramp(run, first, CONFIG)
    look(run, error=0.0, users=10)
    assert len(begin_ramp(run, first, CONFIG).history) == 1


def test_by_hand_the_champion_is_another_by_now(run):
    promoted(run, "old")
    begin_ramp(run, promoted(run, "new"), CONFIG)
    by_hand = promoted(run, "by hand")
    assert look(run, error=0.5).kind == "rollback"
    assert champion(run) == by_hand.candidate


def test_no_ramp(run):
    promoted(run, "old")
    with pytest.raises(RampError, match="one begins with a promote"):
        ramp_step(run, searches(0.0, 1, 0.0), observation="x", until=0.0)
