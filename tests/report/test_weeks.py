import copy
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from corewrite.report import render_weeks
from corewrite.report.chart_data import Panel, spread
from corewrite.report.charts import week_lines
from corewrite.report.week_views import Run, answer, in_weeks

HOSTILE = 'harm_rate at "<script>alert(1)</script>" & \u202egnp'
ARMS = {"weekly": 0.0, "never": 0.01, "no_gate": 0.02, "holdback": 0.05}
VERDICTS = {1: "promote", 2: "hold", 3: "reject", 4: "promote", 5: None}

Reader = Callable[[str], Any]


def row(week: int, arm: str, /, **changes: Any) -> dict[str, Any]:
    worse = ARMS[arm] + week / 1000
    return {
        "week": week, "arm": arm, "cqr": 0.2 + worse, "give_up": 0.15 + worse,
        "reward": None if arm == "holdback" else 0.08 - worse, "judge": 0.72 - worse,
        "ndcg10": 0.65 - worse, "verdict": VERDICTS[week] if arm == "weekly" else None,
        "policy": None if arm == "holdback" else f"{arm}-{week}-0123456789", **changes,
    }  # fmt: skip


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [row(week, arm) for arm in reversed(ARMS) for week in (3, 1, 2, 5, 4)]


@pytest.fixture
def about() -> dict[str, Any]:
    return {
        "seed": 7, "machine": "AMD EPYC, 2 cores", "code_version": "0.1.0", "seconds": 4980.0, "weeks": 5,
        "comparisons": [
            {"name": "weekly minus never retrained, CQR", "metric": "cqr", "difference": -0.0101, "low": -0.0132,
             "high": -0.0074, "weeks": 5, "n": 40312},
            {"name": "no gate minus weekly", "difference": -0.0213, "low": -0.0301, "high": -0.0102, "weeks": [3, 4],
             "n": 8000},
        ],
        "below_holdback": [{"week": week, "low": 0.01, "high": 0.0423} for week in range(1, 6)],
        "promoted_share": 0.4, "provenance": {"seed": 7, "spec_hash": "5b2f" * 16}, "incident_weeks": [3],
        "rejections": [
            {"week": 3, "reason": HOSTILE, "mitigation": "stronger KL", "recovered_in": 4},
            {"week": 5, "reason": "again", "mitigation": "lower rate", "recovered_in": None},
        ],
        "alarms": [{"week": 4, "text": "the previous relevance model is pinned"}, {"week": 2, "text": "<b>early</b>"}],
    }  # fmt: skip


def test_every_week_of_every_arm_is_shown_with_its_figures(read: Reader, rows: Any, about: Any) -> None:
    found = read(render_weeks(rows, about)).tables["rows"][1:]
    words = ["weekly", "never retrained", "no gate", "holdback"]
    assert [r[:2] for r in found] == [[str(week), arm] for week in range(1, 6) for arm in words]
    # Week 3 without the gate: 0.02 + 0.003 worse.
    assert found[10] == ["3", "no gate", "22.30 %", "17.30 %", "0.0570", "0.6970", "0.6270", "–", "no_gate-3-0123456789"]
    assert found[19][2:] == ["25.50 %", "20.50 %", "–", "0.6650", "0.5950", "–", "–"]


def test_weekly_arm_with_verdict_and_reason(read: Reader, rows: Any, about: Any) -> None:
    rows[rows.index(row(2, "weekly"))] |= {"reason": "fused_reward is unclear"}
    found = read(render_weeks(rows, about)).tables["weeks"][1:]
    assert [r[:2] for r in found] == [[str(w), v or "–"] for w, v in VERDICTS.items()]
    assert found[1][2:] == ["weekly-2", "20.20 %", "15.20 %", "0.0780", "0.7180", "0.6480", "fused_reward is unclear"]
    assert found[2][-1] == 'incident harm_rate at "<script>alert(1)</script>" & <U+202E>gnp'
    assert found[0][-1] == found[3][-1] == ""


def test_headline_answers(read: Reader, rows: Any, about: Any) -> None:
    cards = read(render_weeks(rows, about)).definitions
    assert cards["Is retraining every week better than never?"] == [
        "yes", "weekly minus never retrained, CQR: -0.0101, 95 % interval -0.0132 to -0.0074",
    ]  # fmt: skip
    # nDCG@10: 0.65 - 0.003 and 0.65 - 0.023.
    assert cards["Did the gate stop the incident?"] == [
        "yes", "week 3: reject; true nDCG@10 in week 3 0.6470, without the gate 0.6270",
    ]  # fmt: skip
    assert cards["Weeks promoted"] == ["40.0 %", "of 4 verdicts: 2 promote, 1 hold, 1 reject"]
    assert cards["Weeks wholly below no rewriter (the holdback)"] == ["0", "95 % intervals corrected for 5 weeks"]
    assert cards["Unattended recoveries"] == ["1", "week 4"]


def test_headline_does_not_flatter(read: Reader, rows: Any, about: Any) -> None:
    rows[rows.index(row(3, "weekly"))]["verdict"] = "promote"
    about["comparisons"][0] |= {"high": 0.0001}
    about["below_holdback"][1] |= {"low": -0.05, "high": -0.01, "metric": "cqr"}
    about["below_holdback"][4] |= {"low": None, "high": None}
    page = read(render_weeks(rows, about))
    assert page.definitions["Is retraining every week better than never?"][0] == "not shown"
    assert page.definitions["Did the gate stop the incident?"][0] == "no"
    below = page.definitions["Weeks wholly below no rewriter (the holdback)"]
    assert below == ["1", "95 % intervals corrected for 5 weeks; below: week 2; could not be compared: week 5"]
    assert page.tables["holdback"][1:3] == [
        ["1", "–", "+0.01 to +0.0423", "no"],
        ["2", "change-query rate", "-0.05 to -0.01", "yes"],
    ]
    assert page.tables["holdback"][5] == ["5", "–", "–", "–"]


def test_an_incident_without_a_verdict_is_not_called_stopped(read: Reader, rows: Any, about: Any) -> None:
    page = read(render_weeks(rows, about | {"incident_weeks": [3, 5]}))
    assert page.definitions["Did the gate stop the incident?"][0] == "–"
    assert "The incident is in weeks 3, 5." in page.text


@pytest.mark.parametrize(
    ("metric", "low", "high", "said"),
    [
        ("cqr", -0.02, -0.01, "yes"), ("cqr", 0.01, 0.02, "no: worse"), ("give_up", 0.01, 0.02, "no: worse"),
        ("ndcg10", 0.01, 0.02, "yes"), ("reward", -0.02, -0.01, "no: worse"), ("judge", -0.02, 0.01, "not shown"),
        ("cqr", 0.0, 0.02, "not shown"), (None, 0.01, 0.02, "interval excludes 0"), ("cqr", None, 0.1, "–"),
    ],
)  # fmt: skip
def test_answer_knows_which_way_is_better(metric: str | None, low: float | None, high: float, said: str) -> None:
    comparison = {"low": low, "high": high} | ({"metric": metric} if metric else {})
    assert answer(comparison) == said


def test_comparisons_and_log(read: Reader, rows: Any, about: Any) -> None:
    page = read(render_weeks(rows, about))
    first, second = page.tables["comparisons"][1:]
    assert first[:3] + first[4:] == [
        "weekly minus never retrained, CQR", "-0.0101", "-0.0132 to -0.0074", "yes", "5", "40,312",
    ]  # fmt: skip
    assert second[4:] == ["interval excludes 0", "weeks 3 to 4", "8,000"]
    assert [r[:2] for r in page.tables["log"][1:]] == [
        ["2", "alarm"], ["3", "incident"], ["3", "rejection"], ["4", "alarm"], ["5", "rejection"],
    ]  # fmt: skip
    assert page.tables["log"][1][2] == "<b>early</b>" and page.tables["log"][3][3] == "stronger KL: promoted in week 4"
    assert page.definitions["Seed"] == ["7"] and "The run took 1 h 23 min." in page.text


def test_self_contained_and_escaped(read: Reader, rows: Any, about: Any) -> None:
    rows[0]["policy"] = rows[1]["reason"] = about["machine"] = about["comparisons"][0]["name"] = HOSTILE
    text = render_weeks([*rows, row(1, "weekly", week=6, reason=HOSTILE)], about)
    page = read(text)
    assert "script" not in page.tags and "\u202e" not in text and text.count("<b>early") == 0
    assert not {name for _, name, _ in page.attributes if name.startswith("on")} and "://" not in re.sub(
        'xmlns[^"]*"[^"]*"', "", text
    )
    ids = [value for _, name, value in page.attributes if name == "id"]
    wanted = {value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href") and value.startswith("#")}
    assert len(ids) == len(set(ids)) and len(wanted) >= 7 and wanted <= set(ids)
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in page.attributes
    assert page.definitions["Machine"] == ['harm_rate at "<script>alert(1)</script>" & <U+202E>gnp']


@pytest.mark.parametrize("missing", [None, math.nan])
def test_missing_numbers_and_no_facts(read: Reader, missing: float | None, rows: Any) -> None:
    blank = [r | dict.fromkeys(("cqr", "give_up", "reward", "judge", "ndcg10"), missing) for r in rows]
    page = read(render_weeks(blank, {}))
    assert list(page.tables) == ["weeks", "rows"] and "svg" not in page.tags and not page.definitions
    assert page.tables["rows"][1][2:7] == ["–"] * 5 and not re.search(r"\b(nan|None)\b", page.text)


def test_weeks_that_are_not_there_are_said(read: Reader, rows: Any) -> None:
    assert "Of 22 planned weeks, 5 are here." in read(render_weeks(rows, {"weeks": 22})).text
    assert "planned" not in read(render_weeks(rows, {"weeks": 5})).text


def test_wrong_rows_are_refused(rows: Any, about: Any) -> None:
    with pytest.raises(ValueError, match="week 3 has two rows of arm 'weekly'"):
        render_weeks([*rows, row(3, "weekly")], about)
    with pytest.raises(ValueError, match="no row"):
        render_weeks([], about)
    with pytest.raises(ValueError, match="verdict 'maybe' of week 1 is none of promote, hold, reject"):
        render_weeks([row(1, "weekly", verdict="maybe")], about)
    with pytest.raises(TypeError, match=r"'0\.2' is not a number"):
        render_weeks([row(1, "weekly", cqr="0.2")], about)


def test_equal_input_gives_equal_bytes(rows: Any, about: Any) -> None:
    before = copy.deepcopy((rows, about))
    assert render_weeks(rows, about) == render_weeks(list(reversed(rows)), about)
    assert (rows, about) == before


def test_panels_are_in_per_cent_and_leave_out_what_has_no_value(rows: Any) -> None:
    for r in rows:
        r["judge"] = None
    panels = Run.of(rows, []).panels()
    assert [panel.title.split(",")[0] for panel in panels] == [
        "change-query rate",
        "give-up rate",
        "reward",
        "true nDCG@10 (higher is better)",
    ]
    assert panels[0].series["no gate"][2] == (3, pytest.approx(22.3))


def test_spans_of_weeks() -> None:
    assert [in_weeks(w) for w in ([], [3], [1, 2, 3, 4, 9], [2, 4, 5])] == ["", "week 3", "weeks 1 to 4, 9", "weeks 2, 4 to 5"]


SVG = "{http://www.w3.org/2000/svg}"


def test_marks_and_shade_stand_at_their_weeks(painted: Callable[[str, str], list[list[tuple[float, float]]]]) -> None:
    up = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    panel = Panel("x", {"weekly": up, "never": [(1, 1.0), (2, None), (3, 1.5), (4, 1.2)]})
    svg = week_lines([panel], verdicts={1: "promote", 2: "hold", 3: "reject"}, shaded=[3], weeks=(1, 4))
    drawing = ET.fromstring(svg)  # noqa: S314 (our own drawing)
    (shade,) = painted(svg, "quiet")
    edges = [x for x, _ in shade]

    def mark(variable: str) -> tuple[float, float]:
        places = [tuple(sum(axis) / len(axis) for axis in zip(*corners, strict=True)) for corners in painted(svg, variable)]
        assert len(places) == 2  # on the line and, above it, in the legend
        return max(places, key=lambda place: place[1])

    (x2, y2), (x3, y3) = mark("paper"), mark("bad")
    # The shade is a week wide about week 3; the line rises.
    assert x3 == pytest.approx((min(edges) + max(edges)) / 2, abs=1e-3)
    assert x3 - x2 == pytest.approx(max(edges) - min(edges), rel=1e-4) and y2 > y3
    words = ["".join(t.itertext()) for t in drawing.iter(SVG + "text")]
    assert {"weekly", "never", "incident", "promote", "hold", "reject", "week"} <= set(words)


def test_lines_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="5 series, at most 4"):
        week_lines([Panel("x", {str(i): [(1, 1.0)] for i in range(5)})], verdicts={}, shaded=[], weeks=(1, 1))
    with pytest.raises(ValueError, match="no panel"):
        week_lines([], verdicts={}, shaded=[], weeks=(1, 1))


@pytest.mark.parametrize(
    ("places", "moved"),
    [
        ([5, 1], [5, 1]),  # far enough apart: left alone
        ([5, 4.5, 5.2], [5.5, 4.5, 6.5]),  # upwards
        ([10, 9.8], [10, 9]),  # the upper end pushes down
        ([0.2, 0, 0.1], [2, 0, 1]),
        ([], []),
    ],
)
def test_spread(places: list[float], moved: list[float]) -> None:
    assert spread(places, 1, 0, 10) == pytest.approx(moved)
