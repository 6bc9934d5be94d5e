"""`corewrite search`."""

from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corewrite.cli.common import open_registry, print_json, reported_errors

EXAMPLES = (
    'Examples: `corewrite search "bts" --context "blackpink dance practice" --explain` · '
    '`corewrite search "bts" --rewrite "bts dance practice" --json`'
)


def search(
    query: str = typer.Argument(help="What the user types."),
    context: list[str] = typer.Option([], help="An earlier query of the session, oldest first. Repeatable."),
    watched: list[str] = typer.Option([], help="A title watched before, oldest first. Repeatable."),
    locale: str = typer.Option("", help="BCP-47 language tag of the user, such as de-AT; empty: unknown."),
    run: Path = typer.Option(Path("runs/demo"), help="Run folder with documents and registry."),
    rewrite: str | None = typer.Option(None, help="Use this rewrite instead of the champion's."),
    depth: int = typer.Option(10, min=1, max=100, help="Results."),
    explain: bool = typer.Option(False, help="Show every factor of every result and what the rewrite changed."),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON; always with factors."),
) -> None:
    """Search the embedded cascade with the champion rewriter."""
    from corewrite.deployment.explain import explain_search, load_champion
    from corewrite.domain import Context, Query

    with reported_errors():
        if not query.strip():
            raise typer.BadParameter("the query is empty")
        served = load_champion(run / "documents.parquet", open_registry(run))
        found = explain_search(
            served, Query(query, Context(tuple(context), tuple(watched), locale)), rewrite=rewrite, depth=depth
        )
    if as_json:
        print_json(found)
        return
    console = Console()
    console.print(f"rewrite   {escape(found['rewrite'] or '(none: the query stands)')}")
    if explain:
        c = found["candidates"]
        console.print(
            f"recall    {c['original']} by the query, {c['rewrite_only']} more by the rewrite; finerank got {c['finerank']}"
        )
        status = ", ".join(f"{name}: {state}" for name, state in found["signal_status"].items())
        console.print(f"signals   {status}")
    names = sorted({name for r in found["results"] for name in r["factors"]}) if explain else []
    headers = ["#", "was", "id", "title", *(n.replace(".", "\n") for n in names), *(["score"] if explain else [])]
    table = Table(*headers, box=None, pad_edge=False)
    for r in found["results"]:
        was = "new" if r["rank_without"] is None else str(r["rank_without"])
        moved = f"[green]{was}[/green]" if r["rank_without"] is None or r["rank_without"] > r["rank"] else was
        factors = [f"{r['factors'][n]:.3f}" for n in names]
        table.add_row(
            str(r["rank"]), moved, escape(r["id"]), escape(r["title"]), *factors, *([f"{r['score']:.4f}"] if explain else [])
        )
    console.print(table)
    if explain and found["dropped"]:
        dropped: list[dict[str, Any]] = found["dropped"]
        console.print("left the list: " + "; ".join(escape(f"{d['title']} (was {d['rank_without']})") for d in dropped))
