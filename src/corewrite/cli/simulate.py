"""`corewrite simulate`."""

from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from corewrite.cli.common import print_json, progress_console, reported_errors

EXAMPLES = (
    "Examples: `corewrite simulate --facts` · `corewrite simulate --sessions 50000 --out runs/platform` · "
    "`corewrite simulate --facts --json`"
)


def simulate(
    facts: bool = typer.Option(False, help="Print the stylised facts of a week beside the ranges held by a test."),
    out: Path | None = typer.Option(None, help="Folder for documents (Parquet), logs (UBI NDJSON) and per-document signals."),
    sessions: int = typer.Option(20_000, min=200, help="Sessions of each of the two weeks."),
    seed: int = typer.Option(0, min=0, help="The one seed."),
    as_json: bool = typer.Option(False, "--json", help="Print the facts as JSON."),
) -> None:
    """Simulate two weeks of searches on the short-video platform, served by original signals alone."""
    from corewrite.console.progress import ProgressSteps
    from corewrite.demo.platform import two_weeks

    if not facts and out is None:
        raise typer.BadParameter("nothing to do: ask for --facts, or name a folder with --out")
    with reported_errors():
        found = two_weeks(seed, sessions, out, ProgressSteps(progress_console(quiet=False)))
    if as_json:
        print_json([{**asdict(f), "holds": f.holds} for f in found])
        return
    if facts:
        table = Table("fact", "value", "range", "", title=f"Simulated platform, seed {seed}, {sessions} sessions a week")
        for f in found:
            table.add_row(f.name, f"{f.value:.3f}", f"{f.low:g} – {f.high:g}", "holds" if f.holds else "[red]outside[/red]")
        Console().print(table)
    if out is not None:
        typer.echo(f"documents, logs and signals are in {out}")
