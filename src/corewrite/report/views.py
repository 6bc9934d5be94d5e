"""Views of a run: the data of each section of its page, from the plain dictionaries of the run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corewrite.report.chart_data import Interval, Panel
from corewrite.report.format import SLICES, SYSTEMS, change, finite, interval, label, number, ordered, percent

Json = Mapping[str, Any]

# Name, words, whether more or less of it is better, and whether it is a share, of each metric of a launch.
_METRICS = (
    ("cqr", "change-query rate, first impacted search", "lower", True),
    ("give_up", "give-up rate, first impacted search", "lower", True),
    ("satisfied", "satisfied rate, first impacted search", "higher", True),
    ("cqr_all_impacted", "change-query rate, all impacted searches", "lower", True),
    ("give_up_all_impacted", "give-up rate, all impacted searches", "lower", True),
    ("cqr_overall", "change-query rate, all searches", "lower", True),
    ("plain_cqr", "plain change-query rate, all searches", "lower", True),
    ("watch_seconds", "watch time a user, seconds", "higher", False),
)
_DRAWN = ("cqr", "give_up", "cqr_all_impacted", "cqr_overall", "plain_cqr", "watch_seconds")
_LOSSES = ("preference", "quality", "generation", "total")


@dataclass(frozen=True)
class Card:
    """A figure of the headline.

    Attributes:
        title: What it is.
        value: The figure.
        note: Its interval, or what it is compared with.
    """

    title: str
    value: str
    note: str


def headline(summary: Json) -> list[Card]:
    """The figures that matter most, of those the run has: quality, reward and judge at the gate, each launch."""
    cards = []
    everything = (summary.get("ndcg10") or {}).get("all") or {}
    champion, original = finite(everything.get("champion")), everything.get("original")
    if champion is not None:
        against = percent(change(champion, original), signed=True)
        note = f"{number(original)} without a rewriter, {against}; mean over held-out searches, against hidden intents"
        cards.append(Card("nDCG@10 of the champion", number(champion), note))
    cards += comparison_cards(summary)
    checks = {check["name"]: check for check in (summary.get("gate") or {}).get("checks") or ()}
    for name, title in (("fused_reward", "Reward at the gate, log R"), ("judge_ndcg", "Judge's nDCG@10 at the gate")):
        check = checks.get(name)
        if check is not None and finite(check["difference"]) is not None:
            note = f"candidate against champion; 95 % interval {interval(check['low'], check['high'], number, 4)}"
            cards.append(Card(title, number(check["difference"], 4, signed=True), note))
    for launch in summary.get("experiment") or ():
        effect = launch["cqr"]
        limits = interval(effect["ci_low"], effect["ci_high"])
        note = f"{level(launch)} interval {limits}; {'counts' if launch['counts'] else 'does not count'}"
        cards.append(Card(f"Change-query rate, {launch['launch']}", percent(effect["relative"], signed=True), note))
    return cards


def comparison_cards(summary: Json) -> list[Card]:
    """The champion between the baselines and the recoverable oracle; none of a run that compared nothing."""
    cards, comparison = [], summary.get("comparison") or {}
    if over := comparison.get("over_best_baseline"):
        gain, low, high = (change(over[key], 1.0) for key in ("value", "low", "high"))
        best = SYSTEMS.get(comparison["best_baseline"], label(comparison["best_baseline"]))
        note = f"best baseline without a language model: {best}; 95 % interval {interval(low, high)}"
        cards.append(Card("Champion over best baseline", percent(gain, signed=True), note))
    shares = comparison.get("recoverable_share") or {}
    if champion := shares.get("champion"):
        limits = interval(champion["low"], champion["high"], signed=False)
        others = [f"{SYSTEMS.get(s, label(s))} {percent(x['value'])}" for s, x in shares.items() if s != "champion"]
        note = "; ".join([f"of the way from the original query to the recoverable oracle; 95 % interval {limits}", *others])
        cards.append(Card("Share of the recoverable gain", percent(champion["value"]), note))
    return cards


def level(launch: Json) -> str:
    """The level of a launch's intervals, such as "95 %"."""
    return f"{100 * (1 - launch['alpha']):g} %"


@dataclass(frozen=True)
class BySlice:
    """A metric by system and slice.

    Attributes:
        systems: Words by system.
        slices: Words by slice.
        values: Value by slice and system, None where not measured.
    """

    systems: Mapping[str, str]
    slices: Mapping[str, str]
    values: Mapping[str, Mapping[str, float | None]]

    @classmethod
    def of(cls, values: Mapping[str, Mapping[str, float | None]]) -> "BySlice":
        """Order `values` by the known systems and slices; a system that a slice lacks is None there."""
        systems = ordered(dict.fromkeys(system for row in values.values() for system in row), SYSTEMS)
        slices = ordered(values, SLICES)
        return cls(systems, slices, {s: {x: finite(values[s].get(x)) for x in systems} for s in slices})

    def against_original(self, slice_name: str, system: str) -> float | None:
        """Relative change of a system against no rewriter on a slice."""
        row = self.values[slice_name]
        return None if system == "original" else change(row[system], row.get("original"))

    @property
    def in_words(self) -> dict[str, dict[str, float | None]]:
        """The values by words of slice and system."""
        return {self.slices[s]: {self.systems[x]: value for x, value in row.items()} for s, row in self.values.items()}


def other_means(summary: Json) -> tuple[dict[str, str], dict[str, Mapping[str, float | None]]]:
    """What else was measured on the held-out searches: words by system, and value by measure and system."""
    named = {"judge": "judge's nDCG@10", "intent_named": "share naming the intent", "reward": "reward, mean log R"}
    rows = {words: summary[key] for key, words in named.items() if summary.get(key)}
    return ordered(dict.fromkeys(system for row in rows.values() for system in row), SYSTEMS), rows


def phases(details: Json) -> list[dict[str, Any]]:
    """The phases' records numbered from 1, the warm start before them as phase 0 where it was measured."""
    start = details.get("start")
    rows: list[dict[str, Any]] = [{"number": 0, "observed": start}] if start else []
    return rows + [{**record, "number": record["phase"] + 1} for record in details.get("phases") or ()]


def phase_panels(rows: Sequence[Json]) -> list[Panel]:
    """What to draw of the phases; a panel without any value is left out."""

    def line(*path: str) -> list[tuple[int, float | None]]:
        return [(row["number"], _at(row, path)) for row in rows]

    panels = [
        Panel("reward held out, log R", {"reward": line("observed", "reward")}),
        Panel("judge's nDCG@10", {"judge": line("observed", "judge")}),
        Panel("true nDCG@10", {"nDCG@10": line("observed", "ndcg10")}),
        Panel("preference pairs", {"pairs": line("pairs")}),
        Panel("entropy per token, nats", {"entropy": line("entropy_per_token")}),
        Panel("ρ, nats", {"chosen": line("rho_chosen"), "rejected": line("rho_rejected")}),
        Panel("loss terms, nats", {name: line("losses", name) for name in _LOSSES}),
        Panel("gradient norms", {name: line("gradient_norms", name) for name in _LOSSES[:3]}),
    ]
    return [panel for panel in panels if panel.drawable]


def phase_seconds(rows: Iterable[Json]) -> dict[str, float]:
    """Seconds by part of a phase, summed over phases."""
    spent: dict[str, float] = {}
    for row in rows:
        for part, seconds in (row.get("seconds") or {}).items():
            spent[part] = spent.get(part, 0.0) + (finite(seconds) or 0.0)
    return spent


def _at(row: Json, path: Sequence[str]) -> float | None:
    """The finite number at `path`, None where there is none."""
    value: Any = row
    for key in path:
        value = None if value is None else value.get(key)
    return finite(value)


def build_interval(name: str, value: float | None, low: float | None, high: float | None) -> Interval | None:
    """The interval, None where an end or the estimate is missing."""
    value, low, high = finite(value), finite(low), finite(high)
    return None if value is None or low is None or high is None else Interval(name, value, low, high)


@dataclass(frozen=True)
class EffectRow:
    """A metric of a launch.

    Attributes:
        name: Its key.
        words: Its name for a reader.
        better: "lower" or "higher".
        share: Whether its values are shares.
        effect: Its values.
    """

    name: str
    words: str
    better: str
    share: bool
    effect: Json

    @property
    def interval(self) -> Interval | None:
        """Relative effect with its interval, None where undefined."""
        effect = self.effect
        return build_interval(self.words, effect["relative"], effect["ci_low"], effect["ci_high"])


def effects(launch: Json) -> list[EffectRow]:
    """The metrics of a launch, the primary one first."""
    return [EffectRow(*metric, launch[metric[0]]) for metric in _METRICS if launch.get(metric[0])]


def build_forest(launch: Json) -> tuple[list[Interval], dict[str, float]]:
    """Intervals to draw of a launch, and by name the limit that give-up must stay under."""
    rows = {row.name: row for row in effects(launch) if row.name in _DRAWN}
    drawn = [found for row in rows.values() if (found := row.interval) is not None]
    margin = finite(launch.get("give_up_margin"))
    return drawn, {rows["give_up"].words: margin} if "give_up" in rows and margin is not None else {}


@dataclass(frozen=True)
class Bar:
    """A factor of a document, drawn on a log scale.

    Attributes:
        name: The signal.
        kind: "original" or "rewrite".
        value: The factor.
        left, width: Of the bar, per cent of the track; None where a factor has no logarithm.
    """

    name: str
    kind: str
    value: float | None
    left: float | None
    width: float | None


@dataclass(frozen=True)
class RankedDocument:
    """A line of a result list.

    Attributes:
        document: Its dictionary: rank, title, grade, score.
        move: How it moved between the two lists, in words; empty where it did not.
        bars: Its factors, the original ones first.
    """

    document: Json
    move: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class FactorScales:
    """The log scales that all examples of a page share.

    Original factors run from the smallest up, so that a longer bar is a larger factor. A rewrite's factors run both ways
    from 1, where they change nothing.

    Attributes:
        low, high: Ends of the scale of the original factors, logarithms.
        reach: Largest distance of a rewrite factor from 1, in logarithms.
    """

    low: float
    high: float
    reach: float

    @classmethod
    def of(cls, documents: Iterable[Json]) -> "FactorScales":
        """The scales that hold every factor of `documents`."""
        logs: dict[str, list[float]] = {"original": [], "rewrite": []}
        for document in documents:
            for key, value in (document.get("factors") or {}).items():
                if (log := _log(value)) is not None:
                    logs[_kind(key)].append(log)
        return cls(
            min(logs["original"], default=0.0), max([0.0, *logs["original"]]), max(map(abs, logs["rewrite"]), default=0.0)
        )

    def bar(self, key: str, value: float | None) -> Bar:
        """The bar of one factor."""
        kind, log = _kind(key), _log(value)
        name = key.partition(".")[2] or key
        if log is None:
            return Bar(name, kind, value, None, None)
        if kind == "rewrite":
            length = 50 * abs(log) / self.reach if self.reach else 0.0
            return Bar(name, kind, value, 50 - length if log < 0 else 50.0, length)
        span = self.high - self.low
        return Bar(name, kind, value, 0.0, 100 * (log - self.low) / span if span else 100.0)


def _kind(key: str) -> str:
    return "rewrite" if key.startswith("rewrite.") else "original"


def _log(value: float | None) -> float | None:
    found = finite(value)
    return math.log(found) if found is not None and found > 0 else None


def rankings(example: Json, scales: FactorScales) -> tuple[list[RankedDocument], list[RankedDocument]]:
    """The lists before and after, with what moved: documents gained, lost, and up or down by how many ranks."""
    rank_before = {d["document_id"]: d["rank"] for d in example["before"]}
    rank_after = {d["document_id"]: d["rank"] for d in example["after"]}

    def line(document: Json, move: str) -> RankedDocument:
        factors = sorted((document.get("factors") or {}).items(), key=lambda item: (_kind(item[0]), item[0]))
        return RankedDocument(document, move, tuple(scales.bar(*factor) for factor in factors))

    before = [line(d, "" if d["document_id"] in rank_after else "drops out") for d in example["before"]]
    after = [line(d, _move(rank_before.get(d["document_id"]), d["rank"])) for d in example["after"]]
    return before, after


def _move(before: int | None, after: int) -> str:
    if before is None:
        return "new"
    if before == after:
        return ""
    return f"up {before - after}" if after < before else f"down {after - before}"
