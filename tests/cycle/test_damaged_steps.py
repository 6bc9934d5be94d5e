"""Steps of a cycle whose values somebody changed: one error that names the file, whatever reads it."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.cycle.mined_week import MinedWindow, first_thresholds
from corewrite.cycle.records import SHAPES
from corewrite.cycle.recovery import mitigations, stuck, suspicious, verdicts_in_a_row
from corewrite.cycle.status import load_history
from corewrite.experiment import RolloutConfig, RolloutState
from corewrite.experiment.rollout.file import RolloutFileError, load_rollout, save_rollout
from corewrite.storage.journal import Journal, JournalError

HASH = "0" * 64
STEPS = {
    "start": {"week": "w1", "settings": HASH, "champion": 5, "relevance_due": True, "mitigations": [], "holds": 0, "log": 5,
              "threads": 2},
    "mine": {"windows": ["w0", "w1"], "span": "a/b", "searches": 7, "thresholds": {"edges": [1.5], "seconds": [2, 3.5]}},
    "relevance": {"relevance": HASH, "fitted": True, "weeks": ["w0"]},
    "spec": {"spec": HASH},
    "probe": {"relevance": HASH, "spec": HASH, "changed": True, "accepted": False, "alarms": ["so"],
              "refused": {"relevance": HASH, "spec": HASH}},
    "train": {"policy": HASH, "provenance": {"seed": 0}, "settings": {"beta": 0.1}, "instances": 3},
    "gate": {"verdict": "hold", "reason": "so", "failed": [], "mitigations": [], "checks": [{"name": "a"}]},
    "record": {"week": "w1", "verdict": "reject", "reason": "so", "failed": ["a"], "mitigations": ["stronger_kl"],
               "mitigations_applied": [], "candidate": HASH, "relevance": HASH, "spec": HASH, "policy": None,
               "relevance_fitted": False, "recovered": False, "alarms": []},
}  # fmt: skip
WRONG = [
    ("start", {"champion": "5"}), ("start", {"champion": 0}), ("start", {"champion": True}), ("start", {"mitigations": 5}),
    ("start", {"mitigations": [5]}), ("start", {"holds": "2"}), ("start", {"log": None}), ("start", {"log": -1}),
    ("start", {"threads": 0}), ("start", {"threads": 10**9}), ("start", {"settings": 5}),
    ("mine", {"windows": "w1"}), ("mine", {"windows": []}), ("mine", {"windows": [5]}), ("mine", {"windows": ["../w2"]}),
    ("mine", {"windows": ["a\\b"]}), ("mine", {"windows": [".."]}), ("mine", {"windows": ["a\x00"]}),
    ("mine", {"thresholds": 5}), ("mine", {"thresholds": {"edges": "a", "seconds": []}}),
    ("mine", {"thresholds": {"edges": []}}),
    ("relevance", {"relevance": 5}), ("relevance", {"fitted": "yes"}), ("relevance", {"alarm": 5}), ("spec", {"spec": None}),
    ("probe", {"accepted": "true"}), ("probe", {"alarms": []}), ("probe", {"alarms": "so"}), ("probe", {"refused": 5}),
    ("probe", {"refused": {"relevance": HASH}}), ("probe", {"relevance": ["a"]}), ("train", {"policy": 5}),
    ("train", {"provenance": 5}), ("train", {"settings": [1]}), ("gate", {"verdict": "maybe"}), ("gate", {"failed": "a"}),
    ("gate", {"mitigations": [None]}), ("gate", {"checks": [1]}), ("record", {"mitigations": 5}),
    ("record", {"relevance_fitted": 1}), ("record", {"relevance": {}}), ("record", {"failed": None}), ("record", {"policy": 5}),
]  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_what_a_step_wrote_is_read(tmp_path, step):
    journal = Journal(tmp_path, SHAPES)
    assert journal.once(step, lambda: STEPS[step]) == STEPS[step] == journal.result(step)


@pytest.mark.parametrize("step, change", WRONG)
def test_a_value_of_another_type_is_a_damaged_step(tmp_path, step, change):
    (tmp_path / f"{step}.json").write_text(json.dumps(STEPS[step] | change))
    with pytest.raises(
        JournalError, match=rf"{step}\.json is damaged \(({next(iter(change))}|what is not accepted).*remove it"
    ):
        Journal(tmp_path, SHAPES).result(step)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["hold", "w1", "../w1", HASH]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(st.sampled_from(sorted(STEPS["record"])), JSON)
def test_any_record_is_read_or_refused_and_what_is_read_can_be_gone_by(tmp_path_factory, key, value):
    run = tmp_path_factory.mktemp("run")
    (run / "cycles" / "w1").mkdir(parents=True)
    (run / "cycles" / "w1" / "record.json").write_text(json.dumps(STEPS["record"] | {key: value}))
    try:
        history = load_history(run)
    except JournalError as error:
        assert "record.json is damaged" in str(error)
        return
    mitigations(history), stuck(history, 1), suspicious(history, 1), verdicts_in_a_row(history, "reject")


@pytest.mark.parametrize("about", [{"span": 5}, {"thresholds": {"edges": [1.0], "seconds": [1.0]}}, {"thresholds": [1]}])
def test_a_mined_week_of_another_form_is_mined_again(tmp_path, about):
    folder = tmp_path / "windows" / "w0"
    folder.mkdir(parents=True)
    (folder / "about.json").write_text(json.dumps({"span": "a/b", "thresholds": None} | about))
    with pytest.raises(JournalError, match=r"about\.json is damaged .*mined again"):
        _ = MinedWindow(folder).span, first_thresholds(tmp_path)


@pytest.mark.parametrize(
    "change", [{"champion": 0}, {"previous": -3}, {"since": math.inf}, {"status": "over"}, {"stage": 9}]
)  # fmt: skip
def test_a_rollout_that_nobody_can_be_on_is_damaged(tmp_path, change):
    file = tmp_path / "ramp.json"
    save_rollout(file, RolloutState(2, 1, 5.0), RolloutConfig())
    assert load_rollout(file)[0].champion == 2
    found = json.loads(file.read_text())
    found["state"] = json.dumps(json.loads(found["state"]) | change)
    file.write_text(json.dumps(found))
    with pytest.raises(RolloutFileError, match=r"ramp\.json is damaged"):
        load_rollout(file)
