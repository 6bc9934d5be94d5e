"""A run's summary and details, with realistic figures; gate and launches in the shape their packages write."""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from corewrite.experiment import AACheck, Effect, LaunchResult
from corewrite.gate import CheckResult, GateResult, Verdict

HOSTILE = 'slow <script>alert(1)</script> "cooking" & \u202egnp.exe'


def check(
    name: str, kind: str, candidate: float, champion: float, error: float, margin: float, verdict: str, sign: int = 1
) -> CheckResult:
    d = sign * (candidate - champion)
    low, high = d - 1.96 * error, d + 1.96 * error
    reason = f"candidate {candidate:.4g}, champion {champion:.4g}, D {d:+.4g} in [{low:+.4g}, {high:+.4g}]"
    question = f"Is {name} as it should be?"
    return CheckResult(name, question, kind, candidate, champion, d, low, high, margin, 4812, 0.0004, verdict, reason)  # type: ignore[arg-type]


def gate() -> GateResult:
    why = "candidate.rewrites holds no bigram"
    return GateResult(
        Verdict.HOLD, f"distinct_2 could not be computed (so with worst_slice): {why}.", 812, 4812,
        (
            check("fused_reward", "reward", 0.0791, 0.0580, 0.0012, 0.0, "pass"),
            check("judge_ndcg", "guardrail", 0.7312, 0.7240, 0.0021, 0.005, "pass"),
            check("worst_slice", "guardrail", 0.6120, 0.6150, 0.0094, 0.02, "unclear"),
            check("harm_rate", "guardrail", 0.051, 0.083, 0.0055, 0.03, "pass", sign=-1),
            CheckResult(
                "distinct_2", "Do rewrites stay as diverse?", "guardrail", None, None, None, None, None, 0.1, 0, None, "error",
                why,
            ),
            check("inflation", "report", 0.51, 0.12, 0.04, 0.2, "fail", sign=-1),
        ),
    )  # fmt: skip


def effect(name: str, control: float, relative: float, half: float) -> Effect:
    return Effect(name, control, control * (1 + relative), relative, relative - half, relative + half, 0.003, 24810, 25102)


def launch(relative: float) -> LaunchResult:
    return LaunchResult(
        name="finerank",
        cqr=effect("cqr", 0.2143, relative, 0.021),
        give_up=effect("give_up", 0.1821, 0.004, 0.023),
        satisfied=effect("satisfied", 0.6036, 0.0105, 0.008),
        cqr_all_impacted=effect("cqr_all_impacted", 0.2201, relative + 0.004, 0.016),
        give_up_all_impacted=effect("give_up_all_impacted", 0.1790, 0.002, 0.019),
        cqr_overall=effect("cqr_overall", 0.2027, relative / 2, 0.011),
        plain_cqr=effect("plain_cqr", 0.4110, -0.011, 0.006),
        watch_seconds=Effect("watch_seconds", 181.25, 184.5, 0.018, math.nan, math.nan, math.nan, 24810, 25102),
        control_arm="none", treatment_arm="all_stages", trigger_p_value=1.0, searches_without_trigger=0, other_arms={},
            treated=None, users_without_trigger={"none": 0, "all_stages": 0},
            srm_p_value=0.4127, srm_triggered_p_value=0.2319, users=49912, searches=100431, impacted_users=21307,
        impacted_searches=39880, give_up_margin=0.05, alpha=0.05, share=0.5,
    )  # fmt: skip


def phase(number: int) -> dict[str, Any]:
    return {
        "phase": number, "policy_version": f"v{number}", "instances": 1800, "instances_without_pair": 611 - 40 * number,
        "rollouts": 14400, "distinct_candidates": 9120, "malformed": 12, "not_ended": 3, "pairs": 1189 + 40 * number,
        "pair_roles": {"between_samples": 900, "identity_chosen": 200, "identity_rejected": 89},
        "mean_sampled_log_reward": 0.031, "mean_best_log_reward": 0.142, "mean_pair_gap": 0.213, "mean_chosen_tokens": 5.1,
        "mean_rejected_tokens": 5.4, "length_reward_correlation": -0.04, "entropy_per_token": 0.91 - 0.06 * number,
        "optimizer_steps": 20,
        "losses": {"preference": 0.68 - 0.02 * number, "quality": 1.371, "generation": 1.12, "total": 0.95},
        "gradient_norms": {"preference": 0.31, "quality": 0.12, "generation": 0.44}, "rho_chosen": 0.21, "rho_rejected": -0.14,
        "accuracy": 0.63 + 0.03 * number, "clipped": 0.15, "delta": 0.002,
        "shift_total": 3.1, "shift_count": 1189,
        "observed": {"reward": 0.064 + 0.004 * number, "judge": 0.725 + 0.002 * number, "ndcg10": 0.642 + 0.003 * number},
        "seconds": {"sample": 12.4, "score": 6.1, "reference": 1.2, "learn": 8.8, "observe": 3.3},
    }  # fmt: skip


def documents(ids: list[str], rewritten: bool) -> list[dict[str, Any]]:
    return [
        {
            "rank": rank, "document_id": name, "title": HOSTILE if name == "v3" else f"Title of {name}, part {rank}",
            "grade": int(name[1:]) % 4, "score": -0.4 * rank,
            "factors": {"original.relevance": 0.9**rank, "original.prior": 0.8}
            | ({"rewrite.relevance": 2.0 if rank < 4 else 0.5} if rewritten else {}),
        }
        for rank, name in enumerate(ids, 1)
    ]  # fmt: skip


def example(query: str, **changes: Any) -> dict[str, Any]:
    before, after = [f"v{i}" for i in range(1, 11)], ["v3", "v11", *[f"v{i}" for i in (1, 2, 4, 5, 6, 7, 8, 9)]]
    return {
        "query": query, "context_queries": ["jaguar speed"], "context_titles": ["The fastest cats", HOSTILE],
        "rewrite": "jaguar animal hunting", "slice": "context_needed", "ndcg_before": 0.1234, "ndcg_after": 0.7654,
        "before": documents(before, False), "after": documents(after, True), **changes,
    }  # fmt: skip


def systems(*values: float | None) -> dict[str, float | None]:
    names = ("original", "last_query", "first_and_last_query", "rm3", "warm_start", "champion", "recoverable", "oracle")
    return dict(zip(names, values, strict=True))


@pytest.fixture
def summary() -> dict[str, Any]:
    full = {
        "seed": 0, "code_version": "0.1.0", "machine": "AMD EPYC, 2 cores, 24 GiB", "command": "corewrite demo --seed 0",
        "seconds": {"world": 4.2, "traffic": 61.0, "relevance": 95.5, "warm_start": 210.4, "training": 128.9},
        "peak_rss_mib": 1523,
        "platform": {"documents": 20000, "entities": 320, "searches": {"week 0": 43120, "held out": 6004, "launch 1": 100431}},
        "relevance": {"auc": 0.6812, "auc_without_picture": 0.6604, "log_loss": 0.4321, "calibration_error": 0.0113,
                      "impressions": 10255},
        "judge_model": {"rank_correlation": 0.604, "mean_absolute_error": 0.512, "labels": 4000},
        "probe": {"passed": False, "instances": 500, "findings": [
            {"name": "stuffing", "reward": -0.1012, "low": -0.1205, "paid": False},
            {"name": "one_word", "reward": 0.0612, "low": 0.0408, "paid": True}]},
        "warm_start": {"examples": 60123, "steps": 450, "first_loss": 6.51, "last_loss": 0.72, "parameters": 1164160},
        "ndcg10": {
            "all": systems(0.5601, 0.6012, 0.5703, 0.6104, 0.6405, 0.6527, 0.7103, 0.7208),
            "clear": systems(0.6531, 0.6480, 0.6532, 0.6471, 0.6690, 0.6702, 0.7190, 0.7211),
            "context_needed": systems(0.3102, 0.4820, 0.3101, 0.4890, 0.5603, 0.5901, 0.6904, 0.7102),
            "misspelt": systems(0.4010, 0.4102, 0.4803, 0.4860, 0.5604, 0.5702, 0.6701, None),
        },
        "searches_measured": {"all": 6004, "clear": 4013, "context_needed": 1408, "misspelt": 583},
        "comparison": {
            "best_baseline": "rm3", "over_best_baseline": {"value": 1.0693, "low": 1.0512, "high": 1.0871}, "users": 2417,
            "recoverable_share": {"warm_start": {"value": 0.5353, "low": 0.5101, "high": 0.5602},
                                  "champion": {"value": 0.6165, "low": 0.5904, "high": 0.6421}}},
        "reward": {"warm_start": 0.0583, "champion": 0.0794},
        "judge": {"original": 0.7012, "warm_start": 0.7240, "champion": 0.7312},
        "intent_named": {"original": 0.7211, "warm_start": 0.8604, "champion": 0.8703},
        "training": {"phases": 4, "rollouts": 57600, "pairs": 4996, "optimizer_steps": 80, "syncs": 4},
        "gate": gate().as_dict(),
        "experiment": [
            {"launch": "launch 1: finerank", **launch(-0.0612).as_dict()},
            {"launch": "launch 2: weekly refresh", **launch(-0.0101).as_dict()},
        ],
        "aa": AACheck(0.046, 500, 0.0293, 0.0683, 0.4412, 12410).as_dict(),
        "provenance": {"code_version": "0.1.0", "data_window": "2026-01-05T00:00:00Z/2026-01-19T00:00:00Z",
                       "spec_hash": "5b2f" * 16, "model_hash": "9c1d" * 16, "seed": 0},
        "something_new": {"ignored": [1, 2]},
    }  # fmt: skip
    return json.loads(json.dumps(full))


@pytest.fixture
def details() -> dict[str, Any]:
    full = {
        "start": {"reward": 0.0583, "judge": 0.7240, "ndcg10": 0.6405},
        "phases": [phase(i) for i in range(4)],
        "examples": [example(HOSTILE), example("jagaur hunting", context_queries=[], context_titles=[], slice="misspelt")],
        "facts": [
            {"name": "query length, words", "value": 2.113, "low": 2.0, "high": 3.5},
            {"name": "misspelt", "value": 0.171, "low": 0.08, "high": 0.15},
        ],
    }
    return json.loads(json.dumps(full))


class Read(HTMLParser):
    """A page as a browser reads it: attributes, cells of tables by section, visible text with white space folded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.section = ""
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.definitions: dict[str, list[str]] = {}
        self._cell: list[str] | None = None
        self._said: list[str] = []
        self._hidden = False
        self._term = ""
        self.feed(text)
        self.close()
        self.text = " ".join("".join(self._said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._hidden = tag == "style"
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
        elif tag == "tr":
            self.tables.setdefault(self.section, []).append([])
        elif tag in ("td", "th", "dt", "dd"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False
        if tag in ("td", "th", "dt", "dd") and self._cell is not None:
            cell, self._cell = " ".join("".join(self._cell).split()), None
            if tag == "dt":
                self._term = cell
            elif tag == "dd":
                self.definitions.setdefault(self._term, []).append(cell)
            else:
                self.tables[self.section][-1].append(cell)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._said.append(data)
            if self._cell is not None:
                self._cell.append(data)


@pytest.fixture
def read() -> Callable[[str], Read]:
    return Read


SVG = "{http://www.w3.org/2000/svg}"
Corners = list[tuple[float, float]]


def shapes(element: ET.Element, at: tuple[float, float] = (0.0, 0.0)) -> Iterator[tuple[ET.Element, Corners]]:
    """Every line and path below an element with its corners in the whole drawing, or its middle for a round one."""
    moved = re.match(r"translate\((.+),(.+)\)", element.get("transform", ""))
    x0, y0 = (at[0] + float(moved[1]), at[1] + float(moved[2])) if moved else at
    if element.tag == SVG + "line":
        yield element, [(x0, y0), (x0 + float(element.get("x2", "")), y0 + float(element.get("y2", "")))]
    elif element.tag == SVG + "path":
        corners: Corners = []
        x, y, steps = 0.0, 0.0, element.get("d", "")
        for step, values in re.findall(r"([MLhv])([^A-Za-z]*)", "" if "A" in steps else steps):
            numbers = [float(v) for v in values.split(",")]
            if step in "ML":
                x, y = numbers
            else:
                x, y = x + numbers[0] * (step == "h"), y + numbers[0] * (step == "v")
            corners.append((x0 + x, y0 + y))
        yield element, corners or [(x0, y0)]
    for child in element:
        yield from shapes(child, (x0, y0))


@pytest.fixture
def painted() -> Callable[[str, str], list[Corners]]:
    """Corners of every shape that is filled or stroked in a colour of the page."""

    def found(svg: str, variable: str) -> list[Corners]:
        drawing = ET.fromstring(svg)  # noqa: S314 (our own drawing)
        colour = f"var(--{variable},"
        return [p for e, p in shapes(drawing) if e.get("fill", "").startswith(colour) or e.get("stroke", "").startswith(colour)]

    return found
