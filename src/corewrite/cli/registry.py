"""`corewrite registry`."""

from dataclasses import asdict
from pathlib import Path

import typer

from corewrite.cli.common import print_json, reported_errors

EXAMPLES = "Examples: `corewrite registry` · `corewrite registry --run runs/mine --json`"


def registry(
    run: Path = typer.Option(Path("runs/demo"), help="Run folder with the registry."),
    as_json: bool = typer.Option(False, "--json", help="Print champion and decisions as JSON."),
) -> None:
    """Show the champion and every decision, and check all artifacts against their hashes."""
    from corewrite.cli.common import open_registry

    with reported_errors():
        opened = open_registry(run)
        champion, decisions, findings = opened.champion(), opened.decisions(), opened.verify_all()
    if as_json:
        value = {
            "champion": champion and asdict(champion),
            "decisions": [asdict(d) for d in decisions],
            "findings": [asdict(f) for f in findings],
        }
        print_json(value)
        return
    typer.echo(f"champion  {'none' if champion is None else f'version {champion.version}, policy {champion.policy[:12]}'}")
    for d in decisions:
        what = d.candidate.policy[:12] if d.candidate else ""
        typer.echo(f"{d.number:>4}  {d.time}  {d.verdict:<10} {what:<12} {d.reason}")
    for f in findings:
        typer.secho(f"damaged   {f}", fg="red")
    typer.echo("all artifacts match their hashes" if not findings else f"{len(findings)} findings")
