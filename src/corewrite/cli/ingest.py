"""`corewrite ingest`."""

from pathlib import Path
from typing import Any

import typer

from corewrite.cli.common import Exit, print_json, reported_errors

EXAMPLES = (
    "Examples: `corewrite ingest log.ndjson.gz` · `corewrite ingest monday.ndjson tuesday.ndjson --out runs/week` · "
    "`corewrite ingest log.ndjson --json`"
)


def ingest(
    files: list[Path] = typer.Argument(help="UBI 1.3.0 NDJSON, plain or .gz, bulk layout or one document per line."),
    out: Path | None = typer.Option(None, help="Folder for searches.parquet, instances.parquet and rejects.ndjson."),
    seed: int = typer.Option(0, min=0, help="For the random negatives of the instances."),
    as_json: bool = typer.Option(False, "--json", help="Print what was found as JSON."),
) -> None:
    """Read a search log: sessions, reformulation chains, how every search ended, training instances."""
    import pyarrow.parquet as pq

    from corewrite.domain import Catalogue
    from corewrite.logs import find_outcomes, fit_propensity, mine_instances, read_log, write_instances

    with reported_errors():
        rejects = (out or files[0].parent) / (f"{files[0].name}.rejects.ndjson" if out is None else "rejects.ndjson")
        log = read_log(files, rejects_path=rejects)
        outcomes = find_outcomes(log)
        documents = sorted({d for hits in outcomes.hit_ids for d in hits})
        try:
            propensity = fit_propensity(outcomes)
        except ValueError as error:
            instances, why = [], str(error)
        else:
            instances, why = mine_instances(outcomes, propensity, Catalogue.of_ids(documents), seed=seed), ""
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            pq.write_table(outcomes.to_arrow(), out / "searches.parquet")
            write_instances(instances, out / "instances.parquet")
    report = log.report
    found: dict[str, Any] = {
        **report.as_dict(),
        "documents_displayed": len(documents),
        "sessions": len(set(outcomes.session_id)),
        "chains": len(set(outcomes.chain.tolist())),
        "satisfaction_told_by": outcomes.rule,
        "outcomes": outcomes.shares(),
        "instances": len(instances),
    }
    if why:
        found["warnings"] = [*report.warnings, f"no training instances: {why}"]
    if as_json:
        print_json(found)
    else:
        _print(found)
    if report.rejected:
        typer.echo(f"{report.rejected} of {report.lines} lines could not be used: see {report.rejects_path}", err=as_json)
        raise typer.Exit(Exit.REJECTS)
    typer.echo(f"all {report.lines} lines were used", err=as_json)


def _print(found: dict[str, Any]) -> None:
    typer.echo(f"{', '.join(found['files'])}: {found['lines']} lines, {found['first']} to {found['last']}")
    typer.echo(
        f"searches   {found['queries']} of {found['clients']} clients, {found['unique_queries']} distinct texts, "
        f"{found['folded']} repeated query ids folded"
    )
    actions = ", ".join(f"{n} {name}" for name, n in found["actions"].items())
    typer.echo(f"events     {actions or 'none'} ({found['orphans']} of unknown searches)")
    typer.echo(
        f"sessions   {found['sessions']}, {found['chains']} reformulation chains; "
        f"satisfaction told by {found['satisfaction_told_by']}"
    )
    shares = ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in found["outcomes"].items())
    typer.echo(f"outcomes   {shares}")
    typer.echo(f"instances  {found['instances']}")
    for warning in found["warnings"]:
        typer.secho(f"note       {warning}", fg="yellow")
