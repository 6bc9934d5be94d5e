"""Run a study of incidents: healthy weeks once, then arms that branch from them, each on its own; all of it resumable."""

import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.cycle import write_catalogue, write_labels
from corewrite.domain.settings import same_settings
from corewrite.domain.steps import Steps
from corewrite.domain.traffic_split import HOLDBACK
from corewrite.simulation.world import make_world
from corewrite.storage.durable import whole_file
from corewrite.storage.journal import write_json
from corewrite.studies.incidents.arm import Arm
from corewrite.studies.incidents.by_name import find_incident
from corewrite.studies.incidents.config import IncidentsConfig
from corewrite.studies.incidents.incident import Injection
from corewrite.studies.incidents.layout import ArmLayout, StudyLayout
from corewrite.studies.incidents.measures import measure_arm
from corewrite.studies.incidents.platform import StudyPlatform
from corewrite.studies.incidents.point import healthy_deployment, healthy_policy, load_point, write_point
from corewrite.studies.layout import FIRST_WEEK, week_name
from corewrite.studies.platform import ratings

HEALTHY = "healthy"


@dataclass(frozen=True)
class ArmPlan:
    """Which arm to run.

    Attributes:
        incident: Name; None: the healthy twin.
        strength: Of the incident.
        gated: Whether there is a gate.
    """

    incident: str | None
    strength: float
    gated: bool

    @property
    def name(self) -> str:
        """Of its folder."""
        what = HEALTHY if self.incident is None else f"{self.incident}-{self.strength:g}"
        return f"{what}-{'gate' if self.gated else 'no-gate'}"


def begin_study(config: IncidentsConfig, folder: Path, steps: Steps) -> StudyLayout:
    """Lay the study's files down, and run the healthy weeks; what is there is not made again.

    Args:
        config: Settings.
        folder: Where everything goes.
        steps: Shows progress.

    Raises:
        ValueError: the folder holds a study under other settings, or the gate rejected the first candidate.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layout = StudyLayout(folder)
    if layout.settings.is_file() and not same_settings(json.loads(layout.settings.read_text("utf-8")), config):
        raise ValueError(f"{folder} holds a study under other settings: give another folder with --out, or remove it")
    write_json(layout.settings, config.model_dump(mode="json"))
    if layout.point.is_file():
        return layout
    with steps.step("build the platform"):
        if not layout.documents.is_file():
            with whole_file(layout.documents) as temporary:
                write_catalogue(make_world(config.platform.seeded_world).catalogue, temporary)
        platform = StudyPlatform.open(config, layout)
    _healthy_weeks(platform, steps)
    write_point(config, layout)
    return layout


def _healthy_weeks(platform: StudyPlatform, steps: Steps) -> None:
    config, layout = platform.config, platform.layout
    arm = Arm(platform, layout.trunk, True, None, Injection(), 0, steps)
    for week in range(FIRST_WEEK):
        if not layout.trunk.log(week).is_file():
            with steps.step(f"{week_name(week)}: traffic without a rewriter"):
                happened = platform.serve(week, platform.cold.cascade, None, config.platform.traffic)
                if week == 0:
                    _rate(platform, week, happened, config.platform.rated_searches)
                arm.write_log(happened, week)
    if layout.trunk.registry.champion() is None:
        _require(arm.cycle(FIRST_WEEK - 1))
        _first_champion(layout)
    last = FIRST_WEEK + config.healthy_weeks - 1
    for week in range(FIRST_WEEK, last + 1):
        if not layout.trunk.row(week).is_file():
            happened = arm.serve(week)
            decided = arm.cycle(week)
            _require(decided)
            if week == last:
                held = np.flatnonzero(np.array([name == HOLDBACK for name in happened.arms]))
                _rate(platform, week, happened.take(held), config.platform.rated_again)
            write_json(layout.trunk.row(week), decided)


def _require(decided: dict[str, Any]) -> None:
    if decided["verdict"] == "stopped":
        raise ValueError(f"a healthy week could not be trained on: {decided['reason']}")


def _first_champion(layout: StudyLayout) -> None:
    """Put the first candidate into production also where the gate held it back: a study needs a beginning."""
    registry = layout.trunk.registry
    if registry.champion() is None:
        held = next(d for d in reversed(registry.decisions()) if d.candidate is not None)
        assert held.candidate is not None
        reason = f"first champion, by the simulation and against the gate ({held.reason})"
        registry.promote(held.candidate, expected=None, reason=reason, evidence={"override": True, "by": "corewrite simulate"})


def _rate(platform: StudyPlatform, week: int, happened: Any, searches: int) -> None:
    """Raters grade results of a week's searches; the labels file holds all they gave."""
    layout = platform.layout
    write_labels(
        ratings(platform.world, happened, platform.cold.cascade, searches),
        platform.catalogue,
        layout.trunk.weeks / f"{week:02d}-labels.parquet",
    )
    given = [pq.read_table(path) for path in sorted(layout.trunk.weeks.glob("*-labels.parquet"))]
    with whole_file(layout.labels) as temporary:
        pq.write_table(pa.concat_tables(given), temporary)


def run_arm(
    config: IncidentsConfig, folder: Path, plan: ArmPlan, steps: Steps, weeks: int | None = None
) -> list[dict[str, Any]]:
    """Run an arm of a study whose healthy weeks are there, or go on with it; returns its weeks' rows.

    Args:
        config: Settings.
        folder: Of the study.
        plan: Which arm.
        steps: Shows progress.
        weeks: Weeks to run at most in this call; None: all.
    """
    layout = StudyLayout(folder)
    arm_layout = layout.arm(plan.name)
    first = FIRST_WEEK + config.healthy_weeks
    wanted = range(first, first + config.weeks_of(plan.gated) + 1)
    missing = [week for week in wanted if not arm_layout.row(week).is_file()]
    if missing:
        platform = _platform(config.model_dump_json(), folder)
        _branch(layout, plan)
        incident = None if plan.incident is None else find_incident(plan.incident)
        injected = Injection() if incident is None else incident.inject(plan.strength, load_point(config, layout))
        arm = Arm(platform, arm_layout, plan.gated, incident, injected, first, steps)
        healthy, start = healthy_deployment(layout, platform), healthy_policy(layout)
        for week in missing[:weeks]:
            row = {"week": week - FIRST_WEEK + 1, **measure_arm(arm, week, healthy, start)}
            if week < wanted[-1]:  # the week after the last is measured only
                arm.serve(week)
                row |= arm.cycle(week)
            write_json(arm_layout.row(week), row)
    return load_rows(config, folder, plan)


def load_rows(config: IncidentsConfig, folder: Path, plan: ArmPlan) -> list[dict[str, Any]]:
    """Rows of the weeks of an arm that are over."""
    arm, first = StudyLayout(folder).arm(plan.name), FIRST_WEEK + config.healthy_weeks
    found = (arm.row(week) for week in range(first, first + config.weeks_of(plan.gated) + 1))
    return [json.loads(row.read_text("utf-8")) for row in found if row.is_file()]


@cache
def _platform(settings: str, folder: Path) -> StudyPlatform:
    """The platform of a study, made once a process."""
    return StudyPlatform.open(IncidentsConfig.model_validate_json(settings), StudyLayout(folder))


def _branch(layout: StudyLayout, plan: ArmPlan) -> None:
    """Give an arm a run and logs of its own, as they were at the end of the healthy weeks."""
    target = layout.arm(plan.name).folder
    if target.is_dir():
        return
    staging = target.with_name(f".{plan.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)  # of a study that was killed here
    ignored = shutil.ignore_patterns("weeks", "training", "start")
    shutil.copytree(layout.trunk.folder, staging, ignore=ignored)
    ArmLayout(staging).weeks.mkdir()
    staging.rename(target)


def remove_run(layout: StudyLayout, plan: ArmPlan) -> None:
    """Remove the run and the logs of an arm that is finished; what was found by week stays."""
    arm = layout.arm(plan.name)
    for folder in (arm.run.root, arm.logs):
        shutil.rmtree(folder, ignore_errors=True)
