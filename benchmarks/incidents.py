"""Incidents that only a gate survives: every incident of the registry, with a gate and without one, against healthy twins.

    python benchmarks/incidents.py [--out runs/incidents] [--minutes 480] [--workers 2] [--seeds 0 1 2] [--only NAME ...]

On the first seed every incident, in the order of --only, runs at its strongest, without a gate and with one; then at the weaker
strengths without one, and with one at the weakest strength that costs 3 % of nDCG@10 in a week. Those that cost so much run on
the other seeds too. Each week of each arm is a file under --out, and a week that is there is not run again: the study can be
stopped at any time and gone on with, after --minutes no further week begins, and what is finished is written in any case. Rows
of the results that this --out knows nothing of stay, so that machines and days can share the study; each says when it was run.

Writes benchmarks/results/incidents.json: `rows` (see `IncidentRow`), `hacks` (reward and truth of the policy without a gate
against the champion at the branch point, paired), `weeks` (damage by week and arm) and `whole` (whether nothing is missing);
`python benchmarks/tables.py` makes the table of docs/concepts/incidents.md from it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from corewrite.report.progress import ProgressSteps
from corewrite.studies.incidents.by_name import INCIDENTS, find_incident
from corewrite.studies.incidents.config import IncidentsConfig, miniature_incidents
from corewrite.studies.incidents.incident import Incident
from corewrite.studies.incidents.run import ArmPlan, begin_study
from corewrite.studies.incidents.side_by_side import Piece, run_arms
from corewrite.studies.incidents.study import IncidentFindings, find_findings
from corewrite.studies.incidents.summary import damages
from corewrite.studies.summary import machine
from corewrite.version import VERSION

RESULTS = Path(__file__).parent / "results" / "incidents.json"
COUNTS = 0.03
"""Damage in a week, as a share of nDCG@10, from which an incident counts."""
_NAMED = ("incident", "strength", "seed")


class Plan:
    """Which arms to run, and with what is known of them which next.

    Args:
        config: Settings, under any seed.
        out: Folder; each seed has one of its own in it.
        seeds: The first has every incident at every strength.
        incidents: Which, in order.
    """

    def __init__(self, config: IncidentsConfig, out: Path, seeds: Sequence[int], incidents: Sequence[Incident]) -> None:
        self.config, self.out, self.seeds, self.incidents = config, out, seeds, incidents

    @property
    def settings(self) -> dict[str, Any]:
        """All of them: a default that has changed since is another setting."""
        return self.config.model_dump(mode="json")

    def study(self, seed: int) -> tuple[IncidentsConfig, Path]:
        """Settings and folder of a seed."""
        return self.config.of(seed), self.out / f"seed-{seed}"

    def pieces(self, seed: int, plans: Sequence[ArmPlan]) -> list[Piece]:
        """Arms of a seed."""
        return [(*self.study(seed), plan) for plan in plans]

    def twins(self) -> list[Piece]:
        """The healthy twins of all seeds."""
        return [p for seed in self.seeds for p in self.pieces(seed, [ArmPlan(None, 0.0, gated) for gated in (False, True)])]

    def strongest(self) -> list[Piece]:
        """Every incident at its strongest on the first seed, without a gate and with one."""
        wanted = [ArmPlan(i.name, i.default_strength, gated) for i in self.incidents for gated in (False, True)]
        return self.pieces(self.seeds[0], wanted)

    def weaker(self) -> list[Piece]:
        """The other strengths on the first seed without a gate, the strongest first."""
        ranks = range(1, max(len(i.strengths) for i in self.incidents))
        wanted = [ArmPlan(i.name, i.strengths[-1 - r], False) for r in ranks for i in self.incidents if r < len(i.strengths)]
        return self.pieces(self.seeds[0], wanted)

    def damage(self, incident: Incident, strength: float) -> float | None:
        """On the first seed without a gate, in the worst week."""
        return min(
            (w.damage for w in damages(*self.study(self.seeds[0]), ArmPlan(incident.name, strength, False))), default=None
        )

    def counting(self, incident: Incident) -> float | None:
        """The weakest strength that costs enough to count; None where none does."""
        known = ((strength, self.damage(incident, strength)) for strength in incident.strengths)
        return next((strength for strength, found in known if found is not None and found <= -COUNTS), None)

    def weakest_counting(self) -> list[Piece]:
        """Those that count at the weakest strength that does, with a gate, on the first seed."""
        wanted = [ArmPlan(i.name, s, True) for i in self.incidents if (s := self.counting(i)) is not None]
        return self.pieces(self.seeds[0], wanted)

    def again(self) -> list[Piece]:
        """Those that count, on the other seeds."""
        strong = [(i, s) for i in self.incidents if (s := self.counting(i)) is not None]
        return [
            piece
            for seed in self.seeds[1:]
            for piece in self.pieces(seed, [ArmPlan(i.name, s, gated) for i, s in strong for gated in (False, True)])
        ]

    def findings(self) -> list[IncidentFindings]:
        """All that is known: every incident at every strength on the first seed, those that count on the others."""
        found = [find_findings(*self.study(self.seeds[0]), i.name, s) for i in self.incidents for s in i.strengths]
        for i in self.incidents:
            if (strength := self.counting(i)) is not None:
                found += [find_findings(*self.study(seed), i.name, strength) for seed in self.seeds[1:]]
        return [f for f in found if f.row.damage_without_gate is not None or f.row.damage_with_gate is not None]


def run_plan(plan: Plan, workers: int, until: float, steps: ProgressSteps) -> bool:
    """Run what is missing; returns whether nothing is any more."""
    for seed in plan.seeds:
        if monotonic() >= until:
            return False
        begin_study(*plan.study(seed), steps)
    whole = True
    for stage in (plan.twins, plan.strongest, plan.weaker, plan.weakest_counting, plan.again):
        try:
            whole &= run_arms(stage(), workers, steps, until=until, keep_runs=False)
        except Exception as error:  # the others go on, and what is finished is written all the same
            print(f"an arm failed: {error!r}", file=sys.stderr)
            whole = False
    return whole


def load_results(plan: Plan, path: Path) -> dict[str, Any]:
    """What is written already.

    Raises:
        ValueError: of other settings.
    """
    stored: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if stored and stored["settings"] != plan.settings:
        raise ValueError(f"{path} holds results under other settings: name another file with --results, or remove it")
    return stored


def write(plan: Plan, whole: bool, path: Path) -> None:
    """Write what is known, beside what others found under the same settings."""
    found, today = plan.findings(), datetime.now(UTC).date().isoformat()
    stored, own, order = load_results(plan, path), [_named(f) for f in found], list(INCIDENTS)

    def merged(name: str, new: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """With what is stored of other incidents, strengths and seeds, in the order of the registry."""
        kept = [row for row in stored.get(name, ()) if {key: row[key] for key in _NAMED} not in own]
        return sorted([*kept, *new], key=lambda row: (row["seed"], order.index(row["incident"]), -row["strength"]))

    value = {
        "rows": merged("rows", [{**asdict(f.row), "date": today, "code_version": VERSION} for f in found]),
        "hacks": merged("hacks", [{**_named(f), **asdict(f.hack)} for f in found if f.hack is not None]),
        "weeks": merged(
            "weeks",
            [
                {**_named(f), "gate": gated, **asdict(week)}
                for f in found
                for gated, by_week in ((False, f.without_gate), (True, f.with_gate))
                for week in by_week
            ],
        ),
        "whole": whole,
        "settings": plan.settings,
        "machine": machine(),
        "date": today,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")


def _named(found: IncidentFindings) -> dict[str, Any]:
    """What a finding is of."""
    return {key: getattr(found.row, key) for key in _NAMED}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/incidents"), help="where weeks are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what is written")
    parser.add_argument("--minutes", type=float, default=480.0, help="after so many no further week begins")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="the first has every incident")
    parser.add_argument("--only", nargs="+", default=list(INCIDENTS), metavar="NAME", help="some incidents only")
    parser.add_argument("--weeks", type=int, default=IncidentsConfig().weeks, help="of each arm after the branch")
    parser.add_argument("--weeks-without-gate", type=int, help="of those without a gate; default: as many")
    parser.add_argument("--miniature", action="store_true", help="minutes instead of hours; its figures mean nothing")
    arguments = parser.parse_args()
    until = monotonic() + 60 * arguments.minutes
    try:
        incidents = [find_incident(name) for name in arguments.only]
    except ValueError as error:
        parser.error(str(error))
    config = miniature_incidents() if arguments.miniature else IncidentsConfig()
    config = config.model_copy(update={"weeks": arguments.weeks, "weeks_without_gate": arguments.weeks_without_gate})
    plan = Plan(config, arguments.out, arguments.seeds, incidents)
    try:
        load_results(plan, arguments.results)
    except ValueError as error:
        parser.error(str(error))
    whole = run_plan(plan, arguments.workers, until, ProgressSteps(Console(stderr=True)))
    write(plan, whole, arguments.results)
    print(f"written to {arguments.results}" + ("" if whole else "; not all of it: run the same command again to go on"))


if __name__ == "__main__":
    main()
