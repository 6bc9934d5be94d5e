"""Views of a longitudinal simulation: the data of each section of its page, from its rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from corewrite.report.chart_data import Panel
from corewrite.report.format import MISSING, finite, interval, number, ordered, percent, significant
from corewrite.report.views import Card, Json

ARMS = {"weekly": "weekly", "never": "never retrained", "no_gate": "no gate", "holdback": "holdback"}
"""What each arm is called, in the order of lines and rows; the gate's verdicts are the first's."""


@dataclass(frozen=True)
class Metric:
    """A figure of every week and arm.

    Attributes:
        key: Its key in a row.
        words: Its name for a reader.
        better: Whether more or less of it is better.
        share: Whether its values are shares.
    """

    key: str
    words: str
    better: Literal["lower", "higher"]
    share: bool = False

    def show(self, value: float | None) -> str:
        """A value as a cell shows it."""
        return percent(value, 2) if self.share else number(value, 4)


METRICS = (
    Metric("cqr", "change-query rate", "lower", True),
    Metric("give_up", "give-up rate", "lower", True),
    Metric("reward", "reward, mean log R", "higher"),
    Metric("judge", "judge's nDCG@10", "higher"),
    Metric("ndcg10", "true nDCG@10", "higher"),
)
_BY_KEY = {metric.key: metric for metric in METRICS}


@dataclass(frozen=True)
class Run:
    """The rows of a run, in order.

    Attributes:
        cells: Row by week and arm; weeks rise, arms stand as in `ARMS` with unknown ones behind.
        weeks: All weeks.
        arms: Words by arm.
        incidents: Weeks of an incident.
    """

    cells: Mapping[tuple[int, str], Json]
    weeks: tuple[int, ...]
    arms: Mapping[str, str]
    incidents: frozenset[int]

    @classmethod
    def of(cls, rows: Iterable[Json], incidents: Iterable[int]) -> "Run":
        """Order `rows`.

        Raises:
            ValueError: there is no row, or a week has two rows of an arm.
        """
        found: dict[tuple[int, str], Json] = {}
        for row in rows:
            at = row["week"], row["arm"]
            if at in found:
                raise ValueError(f"week {at[0]} has two rows of arm {at[1]!r}: give one")
            found[at] = row
        if not found:
            raise ValueError("there is no row: give the weeks of the run, one row for each week and arm")
        arms = ordered(dict.fromkeys(arm for _, arm in found), ARMS)
        weeks = tuple(sorted({week for week, _ in found}))
        cells = {(week, arm): found[week, arm] for week in weeks for arm in arms if (week, arm) in found}
        return cls(cells, weeks, arms, frozenset(incidents))

    def value(self, week: int, arm: str, metric: str) -> float | None:
        """A figure, None where it is missing."""
        return finite(self.cells.get((week, arm), {}).get(metric))

    @property
    def verdicts(self) -> dict[int, str]:
        """What the gate said of the weekly arm's candidate, by week; weeks without a verdict are left out."""
        weekly = {week: self.cells.get((week, "weekly"), {}).get("verdict") for week in self.weeks}
        return {week: verdict for week, verdict in weekly.items() if verdict is not None}

    def panels(self) -> list[Panel]:
        """What to draw, a series per arm with shares in per cent; a metric without any value is left out."""
        found = []
        for metric in METRICS:
            scale = 100 if metric.share else 1
            series = {
                words: [(w, None if (y := self.value(w, arm, metric.key)) is None else scale * y) for w in self.weeks]
                for arm, words in self.arms.items()
            }
            found.append(Panel(f"{metric.words}{', %' if metric.share else ''} ({metric.better} is better)", series))
        return [panel for panel in found if panel.drawable]


def headline(run: Run, about: Json) -> list[Card]:
    """Answers to the questions of the simulation; one without data is left out."""
    cards = []
    comparisons = about.get("comparisons") or ()
    if comparisons:
        first = comparisons[0]
        note = (
            f"{first['name']}: {significant(first['difference'], signed=True)}, "
            f"95 % interval {interval(first['low'], first['high'], significant, 3)}"
        )
        cards.append(Card("Is retraining every week better than never?", answer(first), note))
    if run.incidents:
        cards.append(_incident(run))
    if (share := finite(about.get("promoted_share"))) is not None:
        said = list(run.verdicts.values())
        counted = ", ".join(f"{said.count(verdict)} {verdict}" for verdict in ("promote", "hold", "reject"))
        cards.append(Card("Weeks promoted", percent(share), f"of {len(said)} verdicts: {counted}"))
    if about.get("below_holdback") is not None:
        cards.append(_below(run, about["below_holdback"]))
    if about.get("rejections") is not None:
        weeks = sorted({r["recovered_in"] for r in about["rejections"]} - {None})
        cards.append(Card("Unattended recoveries", number(len(weeks), 0), in_weeks(weeks)))
    return cards


def answer(comparison: Json) -> str:
    """Whether the first of the two is better, by the interval and the direction of the metric that is compared.

    Returns:
        "yes", "no: worse" or "not shown"; "interval excludes 0" where the comparison does not name its `metric`, so that
        nobody can tell which sign is good; "–" where the interval is missing.
    """
    low, high = finite(comparison["low"]), finite(comparison["high"])
    if low is None or high is None:
        return MISSING
    if low <= 0 <= high:
        return "not shown"
    metric = _BY_KEY.get(comparison.get("metric", ""))
    if metric is None:
        return "interval excludes 0"
    return "yes" if (high < 0) == (metric.better == "lower") else "no: worse"


def _incident(run: Run) -> Card:
    said = run.verdicts
    missing = run.incidents - said.keys()
    passed = [week for week in run.incidents if said.get(week) == "promote"]
    value = "no" if passed else MISSING if missing else "yes"
    told = [f"week {week}: {said.get(week, 'no verdict')}" for week in sorted(run.incidents)]
    for week in sorted(run.incidents):
        with_gate, without = (METRICS[-1].show(run.value(week, arm, "ndcg10")) for arm in ("weekly", "no_gate"))
        told.append(f"true nDCG@10 in week {week} {with_gate}, without the gate {without}")
    return Card("Did the gate stop the incident?", value, "; ".join(told))


def build_words(row: Json) -> str:
    """The name, for a reader, of the `metric` that a row is of; "–" where it does not say."""
    metric = _BY_KEY.get(row.get("metric", ""))
    return MISSING if metric is None else metric.words


def is_below(row: Json) -> bool | None:
    """Whether an interval of weekly minus holdback, higher is better, lies wholly below 0; None where it is missing."""
    high = finite(row["high"])
    return None if high is None or finite(row["low"]) is None else high < 0


def _below(run: Run, rows: Sequence[Json]) -> Card:
    below = sorted({row["week"] for row in rows if is_below(row)})
    unknown = sorted({row["week"] for row in rows if is_below(row) is None})
    note = f"95 % intervals corrected for {len(run.weeks)} weeks"
    if below:
        note += f"; below: {in_weeks(below)}"
    if unknown:
        note += f"; could not be compared: {in_weeks(unknown)}"
    return Card("Weeks wholly below no rewriter (the holdback)", number(len(below), 0), note)


def in_weeks(weeks: Sequence[int]) -> str:
    """Weeks in words, those in a row as a span: "week 3" or "weeks 1 to 4, 9"; empty where there is none."""
    if not weeks:
        return ""
    ends = [0, *(i for i, (a, b) in enumerate(pairwise(weeks), 1) if b != a + 1), len(weeks)]
    spans = [(weeks[a], weeks[b - 1]) for a, b in pairwise(ends)]
    listed = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in spans)
    return f"week{'s' if len(weeks) > 1 else ''} {listed}"


@dataclass(frozen=True)
class WeekRow:
    """A week of the weekly arm.

    Attributes:
        week: Its number.
        row: Its row; empty where the arm has none.
        incident: Whether it is a week of an incident.
        reasons: Why the verdict.
    """

    week: int
    row: Json
    incident: bool
    reasons: tuple[str, ...]


def weekly(run: Run, rejections: Sequence[Json]) -> list[WeekRow]:
    """Every week of the run, with the row's own `reason` where it has one and those of the week's rejections."""
    found = []
    for week in run.weeks:
        row = run.cells.get((week, "weekly"), {})
        told = [row.get("reason"), *(r["reason"] for r in rejections if r["week"] == week)]
        found.append(WeekRow(week, row, week in run.incidents, tuple(dict.fromkeys(text for text in told if text))))
    return found


@dataclass(frozen=True)
class Entry:
    """A line of the log.

    Attributes:
        week: When.
        kind: "incident", "alarm" or "rejection".
        text: What happened.
        mitigation: What was done about it; None where nothing is said.
    """

    week: int
    kind: Literal["incident", "alarm", "rejection"]
    text: str
    mitigation: str | None = None


def log(run: Run, alarms: Sequence[Json], rejections: Sequence[Json]) -> list[Entry]:
    """Incidents, alarms and rejections by week, within a week in this order."""
    entries = [Entry(week, "incident", "The incident of this run.") for week in run.incidents]
    entries += [Entry(alarm["week"], "alarm", alarm["text"]) for alarm in alarms]
    entries += [Entry(r["week"], "rejection", r["reason"], _led_to(r)) for r in rejections]
    return sorted(entries, key=lambda entry: entry.week)


def _led_to(rejection: Json) -> str:
    """The mitigation, and the week whose candidate was promoted."""
    week = rejection["recovered_in"]
    return f"{rejection['mitigation']}: " + ("nothing was promoted afterwards" if week is None else f"promoted in week {week}")


def spell(weeks: Any) -> str:
    """The weeks of a comparison, a count or a list of them, in words."""
    return in_weeks(sorted(weeks)) if isinstance(weeks, list | tuple) else number(weeks, 0)
