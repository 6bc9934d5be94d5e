"""`corewrite cycle`."""

import time
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from corewrite.cli.common import VERDICT_EXITS, print_json, progress_console, reported_errors, say, warn_renamed
from corewrite.storage.run_layout import RunLayout

if TYPE_CHECKING:
    from corewrite.cycle.records import WeekRecord

app = typer.Typer(help="The weekly cycle: train from the champion, gate, promote, hold or reject.", no_args_is_help=True)

EXAMPLES = (
    "Examples: `corewrite cycle run --config corewrite.yaml` · `corewrite cycle status --config corewrite.yaml --json` · "
    "`corewrite cycle rollout --config corewrite.yaml --log served` · "
    "`corewrite cycle add-grades graded.parquet --config corewrite.yaml`"
)
_CONFIG = typer.Option(Path("corewrite.yaml"), "--config", "-c", help="Settings of the cycle, YAML.")


@app.command(epilog=EXAMPLES)
def run(
    config: Path = _CONFIG,
    week: str | None = typer.Option(None, help="Name of the week's log; default: the newest."),
    as_json: bool = typer.Option(False, "--json", help="Print the cycle's record as JSON."),
) -> None:
    """Run one week, or go on with a week that was cut off. Exit code 0 promote, 3 hold, 4 reject."""
    from corewrite.cycle.config_sections import load_cycle_config
    from corewrite.cycle.run import run_cycle
    from corewrite.report.progress import ProgressSteps

    with reported_errors("it goes on from the last finished step, a training from its last checkpoint"):
        settings, begun = load_cycle_config(config), time.time()
        record = run_cycle(settings, week, steps=ProgressSteps(progress_console(quiet=False)))
    if as_json:
        print_json(record)
    else:
        say(f"{record['week']}  {record['verdict'].upper()}: {record['reason']}")
        decided = RunLayout(settings.run).cycle(record["week"]).step("record").stat().st_mtime
        for line in _next_steps(settings.run, record, again=decided < begun):
            say(f"{'':<11}{line}")
        for alarm in record["alarms"]:
            say(f"ALARM  {alarm}", fg="red", err=True)
    raise typer.Exit(VERDICT_EXITS[record["verdict"]])


def _next_steps(run: Path, record: "WeekRecord", *, again: bool) -> list[str]:
    """What the candidate was compared with, where the checks stand, and what is done about a HOLD or REJECT."""
    file = RunLayout(run).cycle(record["week"]).step("gate")
    lines = [f"every check is in {file}; docs/reference/gate-checks.md says what each asks"]
    if again:
        lines.append("this week was decided before: settings count from the next week on, or in a new `run` folder")
    if record["verdict"] != "promote" and record["policy"] is None:
        lines.append("compared with the warm start, as there is no champion yet; docs/how-to/recover.md says what to do then")
    if record["mitigations"]:
        lines.append(f"the next week trains with {', '.join(record['mitigations'])} (docs/reference/gate-checks.md)")
    return lines


@app.command("add-grades", epilog=EXAMPLES)
def add_grades_command(
    graded: Path = typer.Argument(help="The week's pairs-to-grade.parquet, or a part of it, with a column `grade`, 0 to 3."),
    config: Path = _CONFIG,
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Add raters' grades of a week's pairs to the labels; the cycle that waits for them goes on when it is run again."""
    from corewrite.cycle.config_sections import load_cycle_config
    from corewrite.cycle.grading import add_grades

    with reported_errors():
        labels = load_cycle_config(config).labels
        new = add_grades(graded, labels)
    if as_json:
        print_json({"new_grades": new, "labels": str(labels)})
    else:
        say(f"{new} new grades in {labels}")


@app.command(epilog=EXAMPLES)
def status(config: Path = _CONFIG, as_json: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Where the cycle stands: champion, steps done of a cycle under way, how the last weeks ended, the rollout."""
    from corewrite.cycle.config_sections import load_cycle_config
    from corewrite.cycle.status import cycle_status

    with reported_errors():
        found = cycle_status(load_cycle_config(config))
    if as_json:
        print_json(found)
        return
    champion = found["champion"]
    say("champion   " + ("none yet" if champion is None else f"version {champion['version']}, policy {champion['policy']:.12}"))
    if found["running"]:
        say(f"running    process {found['running']}")
    for name, steps in found["unfinished"].items():
        say(
            f"unfinished {name}: {', '.join(steps) or 'nothing'} done" + ("" if found["running"] else "; run it again to go on")
        )
    for r in found["weeks"][-10:]:
        say(f"{r['week']:<12} {r['verdict']:<8} {r['reason']}")
        for alarm in r["alarms"]:
            say(f"{'':<12} ALARM    {alarm}", fg="red")
    if (seen := found["ramp"]) is not None:
        say(f"rollout    {seen['status']}, {seen['share']:.0%} of users get version {seen['champion']}; {seen['last']}")


@app.command(epilog=EXAMPLES)
def rollout(
    config: Path = _CONFIG,
    searches: Path | None = typer.Option(
        None, help="Parquet of the stage's searches so far: user_id, arm, timestamp, gave_up, error, neutral."
    ),
    log: Path | None = typer.Option(None, help="Or the log of `corewrite serve`: a file, or a folder of them."),
    observation: str = typer.Option(
        "", "--id", help="Names this look; the same name again changes nothing. Default: what is looked at and the time."
    ),
    until: float | None = typer.Option(
        None, help="End of the log, seconds since the epoch, outcomes settled; default: 30 minutes ago."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Check the new champion's traffic: wait, give it to more users, or roll it back. Exit code 4: rolled back."""
    from dataclasses import asdict

    import pyarrow.parquet as pq

    from corewrite.cycle.config_sections import load_cycle_config
    from corewrite.cycle.steps.rollout import rollout_step, stage_searches
    from corewrite.experiment.rollout.searches import StageSearches

    end = time.time() - 1800 if until is None else until
    with reported_errors():
        if (searches is None) == (log is None):
            raise ValueError("name the traffic to check: --searches, or --log")
        settings = load_cycle_config(config)
        if searches is not None:
            found, name = StageSearches(pq.read_table(searches)), f"{searches.stem} until {end:.0f}"
        else:
            assert log is not None
            found, name = stage_searches(settings, log), f"log until {end:.0f}"
        decision = rollout_step(
            settings.run, found.table, observation=observation or name, until=end, lost_share=found.lost_share
        )
    if as_json:
        print_json(asdict(decision))
    else:
        say(f"{decision.kind.upper()} at {decision.share:.0%} of users: {decision.reason}")
    raise typer.Exit(VERDICT_EXITS["reject"] if decision.kind == "rollback" else 0)


@app.command("ramp", hidden=True)
@wraps(rollout)
def _ramp(**options: Any) -> None:
    """The earlier name of `rollout`."""
    warn_renamed("corewrite cycle ramp", "corewrite cycle rollout")
    rollout(**options)
