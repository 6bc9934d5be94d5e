"""One incident from beginning to end, as `corewrite simulate --incident` runs it."""

from dataclasses import dataclass
from pathlib import Path

from corewrite.domain.steps import Steps
from corewrite.studies.incidents.by_name import find_incident
from corewrite.studies.incidents.config import IncidentsConfig
from corewrite.studies.incidents.run import ArmPlan, begin_study
from corewrite.studies.incidents.side_by_side import run_arms
from corewrite.studies.incidents.summary import HackEvidence, IncidentRow, WeekOfDamage, damages, hack_evidence, incident_row


@dataclass(frozen=True)
class IncidentFindings:
    """What an incident did.

    Attributes:
        row: Its row of `incidents.json`.
        hack: Of a learned hack, what the policy without a gate earns and is worth; else None.
        without_gate, with_gate: Damage by week.
    """

    row: IncidentRow
    hack: HackEvidence | None
    without_gate: tuple[WeekOfDamage, ...]
    with_gate: tuple[WeekOfDamage, ...]


def run_incident(
    config: IncidentsConfig, folder: Path, name: str, strength: float | None, *, steps: Steps, workers: int = 2
) -> IncidentFindings:
    """Run an incident, with a gate and without one, and the healthy twins of both; or go on with it.

    Args:
        config: Settings.
        folder: Of the study: several incidents may share it, and its healthy weeks and twins.
        name: Of the incident.
        strength: Of it; None: its default.
        steps: Shows progress.
        workers: Processes.

    Raises:
        ValueError: there is no such incident, its strength is not above 0, or the folder holds a study under other settings.
    """
    incident = find_incident(name)
    strength = incident.default_strength if strength is None else strength
    if not strength > 0:
        raise ValueError(
            f"strength {strength:g} of {name}: it must be above 0 ({incident.unit}); it is tried with "
            f"{', '.join(f'{s:g}' for s in incident.strengths)}"
        )
    begin_study(config, folder, steps)
    plans = [ArmPlan(i, s, gated) for i, s in ((None, 0.0), (name, strength)) for gated in (False, True)]
    run_arms([(config, folder, plan) for plan in plans], workers, steps)
    return find_findings(config, folder, name, strength)


def find_findings(config: IncidentsConfig, folder: Path, name: str, strength: float) -> IncidentFindings:
    """What is known of an incident, as far as its arms were run."""
    hack = hack_evidence(config, folder, name, strength) if find_incident(name).kind == "learned hack" else None
    by_arm = [tuple(damages(config, folder, ArmPlan(name, strength, gated))) for gated in (False, True)]
    return IncidentFindings(incident_row(config, folder, name, strength), hack, *by_arm)
