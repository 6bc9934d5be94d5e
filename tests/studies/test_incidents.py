"""A study of incidents in miniature: arms, twins, what is read from them; killed and gone on with."""

import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.registry import Registry
from corewrite.studies.incidents.config import miniature_incidents
from corewrite.studies.incidents.layout import StudyLayout
from corewrite.studies.incidents.measures import paired_change
from corewrite.studies.incidents.run import ArmPlan, begin_study, run_arm
from corewrite.studies.incidents.study import find_findings, run_incident
from corewrite.studies.incidents.summary import damages, first_detected, weeks_to_promotion, wrongly_held


class Quiet:
    """Steps that are not shown; one of them may be the last."""

    def __init__(self, last=None):
        self.last = last

    @contextmanager
    def step(self, title):
        if title == self.last:
            raise KeyboardInterrupt
        yield lambda done, total: None


CONFIG = miniature_incidents(weeks=1)
HACK, FAULT, SEASON = ("bot-clicks", 0.6), ("week-missing", 1.0), ("seasonal-shift", 1.0)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folder of a study whose arms are whole, by the command's own function."""
    folder = tmp_path_factory.mktemp("study") / "study"
    for name, strength in (HACK, FAULT, SEASON):
        run_incident(CONFIG, folder, name, strength, steps=Quiet(), workers=1)
    return folder


def rows_of(study, arm):
    return [json.loads(path.read_text()) for path in sorted((study / "arms" / arm / "weeks").glob("[0-9][0-9].json"))]


@pytest.mark.e2e
def test_every_arm_has_its_weeks_and_begins_in_the_same_state(study):
    arms = {path.name: rows_of(study, path.name) for path in (study / "arms").iterdir()}
    assert len(arms) == 8
    first = [rows[0] for rows in arms.values()]
    for key in ("policy", "relevance", "spec"):
        assert len({row[key] for row in first}) == 1
    for name, rows in arms.items():
        assert [r["week"] for r in rows] == [2, 3]
        assert all(0 < r["ndcg10"] < 1 and 0 < r["without"] < 1 for r in rows)
        assert ["verdict" in r for r in rows] == [True, False], "the last week is measured only"
        if name.endswith("no-gate") and not name.startswith("week-missing"):
            assert {r["verdict"] for r in rows[:1]} == {"promote"}
        assert Registry(study / "arms" / name / "run" / "registry").verify_all() == []
    same = {n: rows[0]["ndcg10"] for n, rows in arms.items() if not n.startswith("seasonal")}
    assert len(set(same.values())) == 1, "before a cycle has decided anything, arms differ only where users do"
    with pytest.raises(ValueError, match="under other settings"):
        begin_study(CONFIG.model_copy(update={"weeks": 3}), study, Quiet())


@pytest.mark.e2e
def test_what_is_read_from_the_arms(study):
    missing = find_findings(CONFIG, study, *FAULT)
    assert (missing.row.caught_by, missing.row.detected_week) == ("stopped: reading the log", 2)
    assert (
        "holds no week" in json.loads((study / "arms" / "week-missing-1-no-gate" / "weeks" / "03.json").read_text())["reason"]
    )
    hack = find_findings(CONFIG, study, *HACK)
    assert hack.hack is not None and hack.hack.reward.low <= hack.hack.reward.change <= hack.hack.reward.high
    assert hack.row.damage_without_gate == min(w.damage for w in hack.without_gate)
    assert find_findings(CONFIG, study, *SEASON).hack is None
    # The damage by hand, from the rows' means.
    arms = [rows_of(study, name) for name in ("bot-clicks-0.6-no-gate", "healthy-no-gate")]
    for week, own, twin in zip(hack.without_gate, *(rows[1:] for rows in arms), strict=True):
        added = (own["ndcg10"] - own["without"]) - (twin["ndcg10"] - twin["without"])
        assert week.week == own["week"] and week.damage == pytest.approx(added / twin["ndcg10"])
        assert week.low < week.damage < week.high
    assert all(w.low is None for w in find_findings(CONFIG, study, *SEASON).with_gate), "users search for other things"


@pytest.mark.e2e
def test_a_killed_arm_goes_on_to_the_same_bytes(study, tmp_path):
    plan = ArmPlan(*HACK, True)
    shutil.copytree(study, tmp_path / "study", ignore=shutil.ignore_patterns("arms"))
    (tmp_path / "study" / "arms").mkdir()
    for last in ("week-03: traffic", "gate", "week-04: truth"):
        with pytest.raises(KeyboardInterrupt):
            run_arm(CONFIG, tmp_path / "study", plan, Quiet(last))
    rows = run_arm(CONFIG, tmp_path / "study", plan, Quiet())
    whole, again = (StudyLayout(f).arm(plan.name) for f in (study, tmp_path / "study"))
    assert len(rows) == 2
    for path in sorted(whole.weeks.iterdir()):
        assert path.read_bytes() == (again.weeks / path.name).read_bytes(), path.name
    before = {p: p.stat().st_mtime_ns for p in again.weeks.iterdir()}
    assert run_arm(CONFIG, tmp_path / "study", plan, Quiet()) == rows
    assert {p: p.stat().st_mtime_ns for p in again.weeks.iterdir()} == before


def test_detection_recovery_and_weeks_held_for_nothing():
    def week(number, verdict, caught=None):
        return {"week": number, "verdict": verdict, "caught_by": caught}

    twins = [week(4, "promote"), week(5, "hold", "hold: x"), week(6, "promote"), week(7, "promote"), {"week": 8}]
    rows = [
        week(4, "promote"),
        week(5, "hold", "hold: x"),
        week(6, "reject", "reject: length"),
        week(7, "promote"),
        {"week": 8},
    ]
    assert first_detected(rows, twins) == 2, "what the twin's gate says too is none"
    assert first_detected(twins, twins) is None
    held, rejected, refused = (week(4, "hold", c) for c in ("hold: judge_ndcg", "reject: length", "probe: stuffing"))
    stopped = week(4, "stopped", "stopped: reading the log")
    assert [first_detected([x], [held]) for x in (held, rejected, refused, stopped)] == [None, 0, 0, 0], "louder than the twin"
    assert [first_detected([x], [stopped]) for x in (held, rejected, refused, stopped)] == [None] * 4
    assert weeks_to_promotion(rows, 2) == 1 and weeks_to_promotion(rows, 3) == 0 and weeks_to_promotion(rows[:3], 2) is None
    assert wrongly_held(rows, twins, {5: 0, 6: 0, 7: -0.001, 8: 0}) == 1
    assert wrongly_held(rows, twins, {5: 0, 6: 0, 7: -0.05, 8: 0}) == 0, "it would have done harm"


def test_a_paired_change_has_the_bootstraps_interval():
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 300, 1_500))
    old = rng.beta(2, 2, 1_500)
    new = old + rng.normal(0.02, 0.1, 1_500) + rng.normal(0, 0.05, 300)[users]
    found = paired_change([str(u) for u in users], new, old)
    assert found.change == pytest.approx((new.mean() - old.mean()) / old.mean())
    sums, counts = np.bincount(users, new - old, 300), np.bincount(users, minlength=300)
    draws = rng.integers(0, 300, (4_000, 300))
    spread = np.std(sums[draws].sum(1) / counts[draws].sum(1)) / old.mean()
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * spread, rel=0.08)


def test_an_arm_without_a_twin_says_nothing(tmp_path):
    assert damages(CONFIG, tmp_path, ArmPlan("bot-clicks", 0.4, False)) == []
    found = find_findings(CONFIG, tmp_path, "bot-clicks", 0.4)
    assert (found.row.damage_without_gate, found.row.detected_week, found.row.weeks_wrongly_held) == (None, None, None)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--incident", "bot-click"], 1, "did you mean 'bot-clicks'"),
        (["--incident", "bot-click"], 1, "seasonal-shift"),
        (["--incident", "bot-clicks", "--strength", "0"], 1, "must be above 0"),
        (["--strength", "1"], 2, "--incident"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(args, code, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["simulate", *args])
    assert result.exit_code == code and said in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []
