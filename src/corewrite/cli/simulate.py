"""`corewrite simulate`."""

from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from corewrite.cli.common import print_json, progress_console, reported_errors, say

EXAMPLES = (
    "Examples: `corewrite simulate --facts` · `corewrite simulate --sessions 50000 --out runs/platform` · "
    "`corewrite simulate --facts --json` · `corewrite simulate --weeks 22` (an hour; resumable) · "
    "`corewrite simulate --incident bot-clicks --strength 0.4` (half an hour; resumable)"
)


def simulate(
    facts: bool = typer.Option(False, help="Print the stylised facts of a week beside the ranges held by a test."),
    out: Path | None = typer.Option(None, help="Folder for documents (Parquet), logs (UBI NDJSON) and per-document signals."),
    weeks: int | None = typer.Option(
        None,
        min=1,
        max=22,
        help="Run so many weekly cycles with drift: with and without gate, never retrained.",
    ),
    incident: str | None = typer.Option(
        None,
        help="Run an incident with and without gate against healthy twins, branching from one healthy state; --weeks after the "
        "branch, default 5. An unknown name lists all.",
    ),
    strength: float | None = typer.Option(None, help="Of the incident; default: the strongest that it is tried with."),
    sessions: int | None = typer.Option(
        None, min=200, help="Sessions of a week; default 20,000, with --weeks or --incident 8,000."
    ),
    miniature: bool = typer.Option(
        False, help="With --weeks or --incident: minutes instead of an hour; its figures mean nothing."
    ),
    seed: int = typer.Option(0, min=0, help="The one seed."),
    as_json: bool = typer.Option(False, "--json", help="Print the facts as JSON."),
) -> None:
    """Simulate the short-video platform: two weeks served by original signals alone, or months of weekly cycles."""
    from corewrite.report.progress import ProgressSteps
    from corewrite.studies.platform import two_weeks

    if incident is not None:
        _incident(incident, strength, weeks, sessions, miniature, seed, out or Path("runs/incidents"), as_json)
        return
    if strength is not None:
        raise typer.BadParameter("--strength is an incident's: name it with --incident")
    if weeks is not None:
        _longitudinal(weeks, sessions, miniature, seed, out or Path("runs/simulate"), as_json)
        return
    if not facts and out is None:
        raise typer.BadParameter("nothing to do: ask for --facts, or name a folder with --out")
    with reported_errors():
        found = two_weeks(seed, sessions or 20_000, out, ProgressSteps(progress_console(quiet=False)))
    if as_json:
        print_json([{**asdict(f), "holds": f.holds} for f in found])
        return
    if facts:
        table = Table(
            "fact", "value", "range", "", title=f"Simulated platform, seed {seed}, {sessions or 20_000} sessions a week"
        )
        for f in found:
            table.add_row(f.name, f"{f.value:.3f}", f"{f.low:g} – {f.high:g}", "holds" if f.holds else "[red]outside[/red]")
        Console().print(table)
    if out is not None:
        say(f"documents, logs and signals are in {out}")


def _longitudinal(weeks: int, sessions: int | None, miniature: bool, seed: int, out: Path, as_json: bool) -> None:
    from time import perf_counter

    from corewrite.domain.extras import require_extras
    from corewrite.report.progress import ProgressSteps
    from corewrite.studies.longitudinal.config import LongitudinalConfig, miniature_longitudinal
    from corewrite.studies.longitudinal.run import run_longitudinal
    from corewrite.studies.longitudinal.summary import summarise_longitudinal, write_longitudinal

    begun = perf_counter()
    with reported_errors("it goes on with the first week that is missing"):
        require_extras("train", "report")
        config = miniature_longitudinal(seed, weeks) if miniature else LongitudinalConfig(seed=seed, weeks=weeks)
        if sessions is not None:
            config = config.model_copy(update={"sessions": sessions})
        rows = run_longitudinal(config, out, steps=ProgressSteps(progress_console(quiet=False)))
        about = summarise_longitudinal(config, out, rows, perf_counter() - begun)
        report = write_longitudinal(out, rows, about)
    if as_json:
        print_json({**about, "rows": rows})
        return
    for c in about["comparisons"]:
        say(f"{c['name']:<32} {c['difference']:+.4f} ({c['low']:+.4f} to {c['high']:+.4f})")
    verdicts = ", ".join(f"{n} {name}" for name, n in about["verdicts"].items())
    recovered = len({r["recovered_in"] for r in about["rejections"]} - {None})
    say(f"weeks: {verdicts}; {recovered} recoveries", f"report   {report}", f"weeks    {out / 'weeks.json'}")


def _incident(
    name: str,
    strength: float | None,
    weeks: int | None,
    sessions: int | None,
    miniature: bool,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    from corewrite.domain.extras import require_extras
    from corewrite.report.progress import ProgressSteps
    from corewrite.studies.incidents.config import IncidentsConfig, miniature_incidents
    from corewrite.studies.incidents.study import run_incident

    with reported_errors("it goes on with the first week of an arm that is missing"):
        require_extras("train", "report")
        config = miniature_incidents(seed) if miniature else IncidentsConfig().of(seed)
        if weeks is not None:
            config = config.model_copy(update={"weeks": weeks})
        if sessions is not None:
            config = config.model_copy(update={"platform": config.platform.model_copy(update={"sessions": sessions})})
        found = run_incident(config, out, name, strength, steps=ProgressSteps(progress_console(quiet=False)))
    if as_json:
        print_json(asdict(found))
        return
    row = found.row
    say(f"{row.incident} ({row.kind}), strength {row.strength:g}, seed {row.seed}")
    for what, damage in (("without a gate", row.damage_without_gate), ("with a gate", row.damage_with_gate)):
        say(f"worst week {what:<15} {damage:+.1%} of nDCG@10" if damage is not None else f"worst week {what:<15} not run")
    say("detected      " + ("never" if row.detected_week is None else f"week {row.detected_week}, by {row.caught_by}"))
    recovery = "no promotion since" if row.weeks_to_recovery is None else f"promoting again after {row.weeks_to_recovery} weeks"
    if row.detected_week is not None:
        say(f"recovery      {recovery}")
    say(f"wrongly held  {row.weeks_wrongly_held} weeks")
    if (hack := found.hack) is not None:
        say(
            f"without a gate, week {hack.week}, against the champion at the branch under the same ranker: log R "
            f"{hack.reward.change:+.4f} ({hack.reward.low:+.4f} to {hack.reward.high:+.4f}), nDCG@10 {hack.ndcg10.change:+.1%} "
            f"({hack.ndcg10.low:+.1%} to {hack.ndcg10.high:+.1%}); the ranker's probe: {hack.probe}"
        )
