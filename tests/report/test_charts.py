"""Charts are checked by the geometry that the SVG draws."""

import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from corewrite.domain.shown import spelled, visible
from corewrite.report.chart_data import Interval, Panel, pad
from corewrite.report.charts import durations, forest, interval_strip, phase_lines, slice_bars, week_lines

SVG = "{http://www.w3.org/2000/svg}"
Corners = list[tuple[float, float]]
Painted = Callable[[str, str], list[Corners]]


def texts(svg: str) -> list[str]:
    return ["".join(t.itertext()) for t in ET.fromstring(svg).iter(SVG + "text")]  # noqa: S314 (our own drawing)


def widths(paths: list[Corners]) -> list[float]:
    return [max(x for x, _ in path) - min(x for x, _ in path) for path in paths]


def test_bars_are_as_long_as_values_on_one_scale(painted: Painted) -> None:
    values = {"all": {"original only": 0.4, "champion": 0.6}, "misspelt": {"original only": 0.2, "champion": None}}
    svg = slice_bars(values, emphasis="champion", reference="original only")
    quiet, strong = widths(painted(svg, "quiet")), widths([p for p in painted(svg, "c1") if len(p) > 2])
    assert quiet[1] / quiet[0] == pytest.approx(0.5, abs=1e-3) and strong[0] / quiet[0] == pytest.approx(1.5, abs=1e-3)
    assert len(quiet) == 2 and len(strong) == 1
    assert {"all", "misspelt", "original only", "champion", "0.400", "0.600", "0.200", "–"} <= set(texts(svg))


HOSTILE = 'a\x1b[2J\x9b\u202egnp\u3164\ud800 <b>"&-->'


def test_labels_are_shown_and_nothing_more(painted: Painted) -> None:
    one = Interval(HOSTILE, 0.1, 0.0, 0.2)
    panel = Panel(HOSTILE, {HOSTILE: [(0, 1.0), (1, 2.0)], "b": [(0, 1.0), (1, 3.0)]})
    drawn = [
        slice_bars({HOSTILE: {HOSTILE: 0.4, "b": 0.2}}, emphasis=HOSTILE, reference=HOSTILE),
        phase_lines([panel]),
        week_lines([panel], verdicts={0: "hold"}, shaded=[1], weeks=(0, 1)),
        forest([one], limits={HOSTILE: 0.1}),
        durations({HOSTILE: 1.0}),
    ]
    for svg in drawn:
        assert svg == spelled(svg, keep="\n"), [c for c in svg if spelled(c, keep="\n") != c]
        assert any(visible(HOSTILE) in text for text in texts(svg)), texts(svg)
        assert "<b>" not in svg
    quiet, strong = painted(drawn[0], "quiet"), [p for p in painted(drawn[0], "c1") if len(p) > 2]
    assert len(quiet) == len(strong) == 1  # the one to set off is still known by its name


def test_names_that_read_alike_keep_a_row_each(painted: Painted) -> None:
    svg = durations(
        {"\u202ea": 1.0, "<U+202E>a": 2.0},
    )
    assert texts(svg).count("<U+202E>a") == 2 and len([p for p in painted(svg, "c1") if len(p) > 2]) == 2


def test_names_are_no_expressions() -> None:
    named = '\\"+datum.value+"\\u0041\' ${x}'
    assert named in texts(durations({named: 1.0}))


def test_durations(painted: Painted) -> None:
    svg = durations({"world": 5.0, "training": 20.0})
    world, training = widths(painted(svg, "c1"))
    assert training / world == pytest.approx(4, abs=1e-3) and {"5.0", "20.0", "world"} <= set(texts(svg))


def test_interval_and_limit_share_a_scale_with_zero(painted: Painted) -> None:
    svg = interval_strip(Interval("x", 0.1, -0.1, 0.3), -0.2)
    zero, limit = painted(svg, "muted")[0][0][0], painted(svg, "bad")[0][0][0]
    low, high = (x for x, _ in next(p for p in painted(svg, "c1") if len(p) == 2))
    unit = zero - limit  # 0.2
    assert (zero - low, high - zero) == pytest.approx((0.5 * unit, 1.5 * unit), rel=1e-4)
    ((dot, _),) = next(p for p in painted(svg, "c1") if len(p) == 1)
    assert dot - zero == pytest.approx(0.5 * unit, rel=1e-4)


def test_forest_draws_every_row_in_order_and_the_limit_in_its_own(painted: Painted) -> None:
    rows = [Interval("a", -0.06, -0.08, -0.04), Interval("b", 0.0, -0.02, 0.02)]
    svg = forest(rows, limits={"b": 0.05})
    first, second = [p for p in painted(svg, "c1") if len(p) == 2]
    assert widths([first, second])[0] == pytest.approx(widths([first, second])[1], rel=1e-4)
    assert first[0][1] < second[0][1]  # SVG counts from the top
    (limit,) = painted(svg, "bad")
    assert sum(y for _, y in limit) / 2 == pytest.approx(second[0][1], abs=1e-3)
    # 5 % lies 1.5 interval half-widths beyond the upper end of b.
    assert limit[0][0] - second[1][0] == pytest.approx(0.75 * (second[1][0] - second[0][0]), rel=1e-3)
    assert texts(svg).index("a") < texts(svg).index("b")


def test_a_missing_value_breaks_the_line() -> None:
    svg = phase_lines([Panel("reward", {"r": [(0, 1.0), (1, None), (2, 2.0), (3, 1.5)]})])
    drawing = ET.fromstring(svg)  # noqa: S314 (our own drawing)
    (line,) = [p.get("d", "") for p in drawing.iter(SVG + "path") if p.get("stroke", "").startswith("var(--c1,")]
    assert line.count("L") == 1  # only phases 2 and 3 are joined
    assert {"reward", "phase"} <= set(texts(svg))


def test_panels_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ValueError, match="5 series, at most 4"):
        phase_lines([Panel("x", {str(i): [(0, 1.0)] for i in range(5)})])
    with pytest.raises(ValueError, match="no panel"):
        phase_lines([])


def test_names_are_neither_markup_nor_formulas() -> None:
    svg = durations({"<b>$x^2$ & co": 1.0})
    assert "<b>$x^2$ & co" in texts(svg)


def test_charts_of_one_page_share_no_id_and_are_deterministic() -> None:
    panel = Panel("x", {"a": [(1, 1.0), (2, 2.0)], "b": [(1, 2.0), (2, 1.0)]})

    def draw() -> list[str]:
        return [
            interval_strip(Interval("x", 0.1, 0.0, 0.3), None),
            forest([Interval("x", 0.1, 0.0, 0.3)], limits={"x": 0.2}),
            phase_lines([panel]),
            week_lines([panel], verdicts={1: "promote"}, shaded=[2], weeks=(1, 2)),
        ]

    assert draw() == draw()
    for svg in draw():
        assert " id=" not in svg and "href" not in svg and "url(" not in svg
        assert "<style" not in svg and "<metadata" not in svg and "<!" not in svg and "<?" not in svg


def test_ends_of_an_axis() -> None:
    assert pad([1.0, 3.0], 0.1) == pytest.approx((0.8, 3.2))
    assert pad([-2.0, -2.0], 0.1) == pytest.approx((-2.1, -1.9))
    assert pad([0.0], 0.1) == (-1.0, 1.0)
