"""Charts are checked by the geometry that the SVG draws."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest

from corewrite.domain.shown import spelled, visible
from corewrite.report.charts import Interval, Panel, durations, forest, interval_strip, phase_lines, slice_bars, week_lines

SVG = "{http://www.w3.org/2000/svg}"


def elements(svg: str, tag: str) -> Iterator[ET.Element]:
    return ET.fromstring(svg).iter(SVG + tag)  # noqa: S314 (our own drawing)


def painted(svg: str, variable: str) -> list[list[tuple[float, float]]]:
    """Corners of every path filled or stroked in a colour of the page."""
    paths = [p for p in elements(svg, "path") if f"var(--{variable}," in p.get("style", "")]
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", p.get("d", ""))] for p in paths]


def texts(svg: str) -> list[str]:
    return ["".join(t.itertext()) for t in elements(svg, "text")]


def widths(paths: list[list[tuple[float, float]]]) -> list[float]:
    return [max(x for x, _ in path) - min(x for x, _ in path) for path in paths]


def test_bars_are_as_long_as_values_on_one_scale() -> None:
    values = {"all": {"original only": 0.4, "champion": 0.6}, "misspelt": {"original only": 0.2, "champion": None}}
    svg = slice_bars(values, name="s", emphasis="champion", reference="original only")
    quiet, strong = widths(painted(svg, "quiet")), widths([p for p in painted(svg, "c1") if len(p) > 2])
    assert quiet[1] / quiet[0] == pytest.approx(0.5, abs=1e-3) and strong[0] / quiet[0] == pytest.approx(1.5, abs=1e-3)
    assert len(quiet) == 2 and len(strong) == 1
    assert {"all", "misspelt", "original only", "champion", "0.400", "0.600", "0.200", "–"} <= set(texts(svg))


HOSTILE = 'a\x1b[2J\x9b\u202egnp\u3164\ud800 <b>"&-->'


def test_labels_are_shown_and_nothing_more() -> None:
    one = Interval(HOSTILE, 0.1, 0.0, 0.2)
    panel = Panel(HOSTILE, {HOSTILE: [(0, 1.0), (1, 2.0)], "b": [(0, 1.0), (1, 3.0)]})
    drawn = [
        slice_bars({HOSTILE: {HOSTILE: 0.4, "b": 0.2}}, name="s", emphasis=HOSTILE, reference=HOSTILE),
        phase_lines([panel], name="p"),
        week_lines([panel], name="w", verdicts={0: "hold"}, shaded=[1], weeks=(0, 1)),
        forest([one], name="f", limits={HOSTILE: 0.1}),
        durations({HOSTILE: 1.0}, name="d"),
    ]
    for svg in drawn:
        assert svg == spelled(svg, keep="\n"), [c for c in svg if spelled(c, keep="\n") != c]
        assert any(visible(HOSTILE) in text for text in texts(svg)), texts(svg)
        assert "<b>" not in svg
    quiet, strong = painted(drawn[0], "quiet"), [p for p in painted(drawn[0], "c1") if len(p) > 2]
    assert len(quiet) == len(strong) == 1  # the one to set off is still known by its name


def test_durations() -> None:
    svg = durations({"world": 5.0, "training": 20.0}, name="d")
    world, training = widths(painted(svg, "c1"))
    assert training / world == pytest.approx(4, abs=1e-3) and {"5.0", "20.0", "world"} <= set(texts(svg))


def test_interval_and_limit_share_a_scale_with_zero() -> None:
    svg = interval_strip(Interval("x", 0.1, -0.1, 0.3), -0.2, name="i")
    zero, limit = painted(svg, "muted")[0][0][0], painted(svg, "bad")[0][0][0]
    low, high = (x for x, _ in next(p for p in painted(svg, "c1") if len(p) == 2))
    unit = zero - limit  # 0.2
    assert (zero - low, high - zero) == pytest.approx((0.5 * unit, 1.5 * unit), rel=1e-4)
    (dot,) = elements(svg, "use")
    assert float(dot.get("x", "")) - zero == pytest.approx(0.5 * unit, rel=1e-4)


def test_forest_draws_every_row_in_order_and_the_limit_in_its_own() -> None:
    rows = [Interval("a", -0.06, -0.08, -0.04), Interval("b", 0.0, -0.02, 0.02)]
    svg = forest(rows, name="f", limits={"b": 0.05})
    first, second = [p for p in painted(svg, "c1") if len(p) == 2]
    assert widths([first, second])[0] == pytest.approx(widths([first, second])[1], rel=1e-4)
    assert first[0][1] < second[0][1]  # SVG counts from the top
    (limit,) = painted(svg, "bad")
    assert sum(y for _, y in limit) / 2 == pytest.approx(second[0][1], abs=1e-3)
    # 5 % lies 1.5 interval half-widths beyond the upper end of b.
    assert limit[0][0] - second[1][0] == pytest.approx(0.75 * (second[1][0] - second[0][0]), rel=1e-3)
    assert texts(svg).index("a") < texts(svg).index("b")


def test_a_missing_value_breaks_the_line() -> None:
    svg = phase_lines([Panel("reward", {"r": [(0, 1.0), (1, None), (2, 2.0), (3, 1.5)]})], name="p")
    (line,) = [p.get("d", "") for p in elements(svg, "path") if "c1" in p.get("style", "") and p.get("clip-path")]
    assert line.count("L") == 1  # only phases 2 and 3 are joined
    assert {"reward", "phase"} <= set(texts(svg))


def test_panels_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ValueError, match="5 series, at most 4"):
        phase_lines([Panel("x", {str(i): [(0, 1.0)] for i in range(5)})], name="p")
    with pytest.raises(ValueError, match="no panel"):
        phase_lines([], name="p")


def test_names_are_neither_markup_nor_formulas() -> None:
    svg = durations({"<b>$x^2$ & co": 1.0}, name="d")
    assert "<b>$x^2$ & co" in texts(svg)


def test_charts_of_one_page_share_no_id_and_are_deterministic() -> None:
    def draw(name: str) -> str:
        return interval_strip(Interval("x", 0.1, 0.0, 0.3), None, name=name)

    ids = [set(re.findall(r' id="([^"]+)"', draw(name))) for name in ("a", "b")]
    assert ids[0] and not ids[0] & ids[1] and draw("a") == draw("a")
    assert "<style" not in draw("a") and "<metadata" not in draw("a")
