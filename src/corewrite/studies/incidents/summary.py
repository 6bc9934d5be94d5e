"""What an incident did: to the arm without a gate, to the one with it, and what caught it; each against its healthy twin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from corewrite.studies.incidents.by_name import find_incident
from corewrite.studies.incidents.config import IncidentsConfig
from corewrite.studies.incidents.incident import Incident
from corewrite.studies.incidents.layout import ArmLayout, StudyLayout
from corewrite.studies.incidents.measures import PairedChange, paired_change
from corewrite.studies.incidents.run import ArmPlan, load_rows
from corewrite.studies.layout import FIRST_WEEK

FloatArray = npt.NDArray[np.float64]
Row = Mapping[str, Any]
"""A week of an arm, see `run_arm`."""
HARMLESS = 0.01
"""Damage, as a share of nDCG@10, up to which a week that the gate held was held for nothing."""


@dataclass(frozen=True)
class IncidentRow:
    """An incident at a strength under a seed. Weeks are those of the study: the incident begins in the first after the branch.

    Attributes:
        incident, kind, strength, seed: Which.
        damage_without_gate, damage_with_gate: Change of nDCG@10 against the same arm's healthy twin in the worst of the weeks
            that serve what a cycle of the incident decided, as a share; negative is harm. Where the incident changes what
            ranks, of what the policy adds to it. None where the arm was not run.
        weeks_without_gate, weeks_with_gate: So many weeks that damage is the worst of; fewer than the settings' where the arm
            was not run to the end.
        detected_week: First week in which a step or check of the gated arm spoke up, and none of its twin's did or a milder one
            (see `severity`); None: never.
        caught_by: Which.
        weeks_to_recovery: From then to the next week that promoted; None where none did, or nothing was detected.
        weeks_wrongly_held: Weeks that the gated arm held and its twin did not, though what the arm without a gate promoted then
            did no harm (`HARMLESS`).
    """

    incident: str
    kind: str
    strength: float
    seed: int
    damage_without_gate: float | None
    damage_with_gate: float | None
    weeks_without_gate: int
    weeks_with_gate: int
    detected_week: int | None
    caught_by: str | None
    weeks_to_recovery: int | None
    weeks_wrongly_held: int | None


@dataclass(frozen=True)
class WeekOfDamage:
    """A week of an arm against its healthy twin's.

    Attributes:
        week: Of the study.
        damage: Change of nDCG@10, or of what the policy adds to it, as a share of the twin's nDCG@10.
        low, high: Bounds of its 95 % interval, paired by search; None where users search for other things than in the twin.
    """

    week: int
    damage: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class HackEvidence:
    """What a policy that learned a hack earns and is worth, against the champion at the branch point, under the same ranker.

    Attributes:
        week: Of the study.
        reward: Change of mean log R, nats.
        ndcg10: Change of true nDCG@10, as a share.
        probe: What the ranker's probe said in the week before: "passed", what it paid for, or "not run".
    """

    week: int
    reward: PairedChange
    ndcg10: PairedChange
    probe: str


def load_weeks(config: IncidentsConfig, folder: Path, plan: ArmPlan) -> list[Row]:
    """The rows of an arm that is whole; empty where it is not."""
    rows: list[Row] = [*load_rows(config, folder, plan)]
    return rows if len(rows) == config.weeks_of(plan.gated) + 1 else []


def damages(config: IncidentsConfig, folder: Path, plan: ArmPlan) -> list[WeekOfDamage]:
    """An arm against its healthy twin in the weeks that serve what its cycles decided, as far as both were run."""
    twin = ArmPlan(None, 0.0, plan.gated)
    if plan.incident is None:
        return []
    incident, study = find_incident(plan.incident), StudyLayout(folder)
    arm, healthy, first = study.arm(plan.name), study.arm(twin.name), FIRST_WEEK + config.healthy_weeks + 1
    numbers = range(first, first + config.weeks_of(plan.gated))
    weeks = (week for week in numbers if arm.row(week).is_file() and healthy.row(week).is_file())
    return [_damage(incident, week, arm, healthy) for week in weeks]


def _damage(incident: Incident, week: int, arm: ArmLayout, twin: ArmLayout) -> WeekOfDamage:
    (users, own, own_none), (others, healthy, healthy_none) = _truth(arm, week), _truth(twin, week)
    if incident.changes_ranker:
        own, base = own - own_none, healthy - healthy_none
    else:
        base = healthy
    scale, number = float(healthy.mean()), week - FIRST_WEEK + 1
    if users != others:
        return WeekOfDamage(number, (float(own.mean()) - float(base.mean())) / scale, None, None)
    found = paired_change(users, own, base, scale=scale)
    return WeekOfDamage(number, found.change, found.low, found.high)


def _truth(arm: ArmLayout, week: int) -> tuple[list[str], FloatArray, FloatArray]:
    table = pq.read_table(arm.searches(week))
    return table["user_id"].to_pylist(), table["policy"].to_numpy(), table["none"].to_numpy()


def incident_row(config: IncidentsConfig, folder: Path, name: str, strength: float) -> IncidentRow:
    """The row of an incident, as far as its arms were run."""
    without, with_gate = (damages(config, folder, ArmPlan(name, strength, gated)) for gated in (False, True))
    rows, twins = (load_rows(config, folder, plan) for plan in (ArmPlan(name, strength, True), ArmPlan(None, 0.0, True)))
    detected = first_detected(rows, twins)
    return IncidentRow(
        name,
        find_incident(name).kind,
        strength,
        config.seed,
        min((w.damage for w in without), default=None),
        min((w.damage for w in with_gate), default=None),
        len(without),
        len(with_gate),
        None if detected is None else rows[detected]["week"],
        None if detected is None else rows[detected]["caught_by"],
        None if detected is None else weeks_to_promotion(rows, detected),
        wrongly_held(rows, twins, {w.week: w.damage for w in without}) if with_gate and without else None,
    )


def first_detected(rows: Sequence[Row], twins: Sequence[Row]) -> int | None:
    """Place of the first week in which something spoke up that the twin's week has nothing as severe as."""
    for place, (row, twin) in enumerate(zip(rows, twins, strict=False)):  # one may be behind
        if severity(row) > severity(twin):
            return place
    return None


def severity(row: Row) -> int:
    """How loudly a week's cycle spoke up: 0 not at all, 1 a hold, 2 a REJECT, 3 a ranker or spec refused, 4 no cycle at all."""
    caught = row.get("caught_by")
    return 0 if not caught else {"hold": 1, "reject": 2, "stopped": 4}.get(caught.split(":")[0], 3)


def weeks_to_promotion(rows: Sequence[Row], since: int) -> int | None:
    """Weeks from one to the next that promoted, 0 where it did itself; None where none does."""
    return next((i for i, row in enumerate(rows[since:]) if row.get("verdict") == "promote"), None)


def wrongly_held(rows: Sequence[Row], twins: Sequence[Row], damage: Mapping[int, float]) -> int:
    """Weeks that were held, not so in the twin, though what the arm without a gate promoted then did no harm a week later."""
    held = [
        row["week"]
        for row, twin in zip(rows, twins, strict=False)
        if twin.get("verdict") == "promote" and row.get("verdict") in ("hold", "reject")
    ]
    return sum(damage[week + 1] > -HARMLESS for week in held if week + 1 in damage)


def hack_evidence(config: IncidentsConfig, folder: Path, name: str, strength: float) -> HackEvidence | None:
    """Of the arm without a gate, in the week of its greatest loss to the branch point's champion; None: it was not run."""
    plan = ArmPlan(name, strength, False)
    rows = load_rows(config, folder, plan)
    if len(rows) < 2:
        return None
    arm = StudyLayout(folder).arm(plan.name)
    worst = min(range(1, len(rows)), key=lambda i: rows[i]["ndcg10"] / rows[i]["start"])
    week = rows[worst]["week"] + FIRST_WEEK - 1
    searches, rewards = pq.read_table(arm.searches(week)), pq.read_table(arm.rewards(week))
    users = searches["user_id"].to_pylist()
    earned, before = rewards["policy"].to_numpy(), rewards["start"].to_numpy()
    scored = np.isfinite(earned) & np.isfinite(before)
    of = [user for user, is_scored in zip(rewards["user_id"].to_pylist(), scored.tolist(), strict=True) if is_scored]
    return HackEvidence(
        rows[worst]["week"],
        paired_change(of, earned[scored], before[scored], scale=1.0),
        paired_change(users, searches["policy"].to_numpy(), searches["start"].to_numpy()),
        _probe(rows),
    )


def _probe(rows: Sequence[Row]) -> str:
    """What the probe said where it was first asked."""
    for row in rows:
        if row.get("probe_passed") is not None:
            return "passed" if row["probe_passed"] else f"paid for {', '.join(row['probe_paid'])}"
    return "not run"
