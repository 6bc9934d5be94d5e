"""`corewrite search`."""

from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corewrite.cli.common import open_registry, print_json, reported_errors, visible

EXAMPLES = (
    'Examples: `corewrite search "bts" --context "blackpink dance practice" --explain` · '
    '`corewrite search "bts" --rewrite "bts dance practice" --json`'
)


def search(
    query: str = typer.Argument(help="What the user types."),
    context: list[str] = typer.Option([], help="An earlier query of the session, oldest first. Repeatable."),
    watched: list[str] = typer.Option([], help="A title watched before, oldest first. Repeatable."),
    locale: str = typer.Option("", help="BCP-47 language tag of the user, such as de-AT; empty: unknown."),
    run: Path | None = typer.Option(None, help="Run folder; default: the settings', or runs/demo."),
    config: Path | None = typer.Option(None, "--config", "-c", help="corewrite.yaml: run, documents, ranker."),
    rewrite: str | None = typer.Option(None, help="Use this rewrite instead of the champion's."),
    depth: int = typer.Option(10, min=1, max=100, help="Results."),
    explain: bool = typer.Option(False, help="Show every factor of every result and what the rewrite changed."),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON; always with factors."),
) -> None:
    """Search with the champion rewriter, under the champion's ranker."""
    from corewrite.deployment.explain import SearchSections, explain_search, load_champion
    from corewrite.deployment.run_folder import documents_of_run
    from corewrite.domain import Context, Query
    from corewrite.domain.config_file import read_config

    with reported_errors():
        if not query.strip():
            raise typer.BadParameter("the query is empty")
        settings = read_config(config, SearchSections, run=run)
        folder = settings.run or Path("runs/demo")
        registry = open_registry(folder)
        documents = documents_of_run(folder) if settings.documents is None or run is not None else settings.documents
        served = load_champion(documents, registry, settings.ranker)
        found = explain_search(
            served, Query(query, Context(tuple(context), tuple(watched), locale)), rewrite=rewrite, depth=depth
        )
    if as_json:
        print_json(found)
        return
    _print(Console(), found, explain)


def _print(console: Console, found: dict[str, Any], explain: bool) -> None:
    """The list as a table; texts of documents and models are shown and do nothing else."""

    def shown(text: str) -> str:
        return escape(visible(text))

    console.print(f"rewrite   {shown(found['rewrite'] or '(none: the query stands)')}")
    if explain:
        c = found["candidates"]
        console.print(
            f"recall    {c['original']} by the query, {c['rewrite_only']} more by the rewrite; finerank got {c['finerank']}"
        )
        status = ", ".join(f"{shown(name)}: {state}" for name, state in found["signal_status"].items())
        console.print(f"signals   {status}")
    names = sorted({name for r in found["results"] for name in r["factors"]}) if explain else []
    headers = ["#", "was", "id", "title", *(shown(n).replace(".", "\n") for n in names), *(["score"] if explain else [])]
    table = Table(*headers, box=None, pad_edge=False)
    for r in found["results"]:
        was = "new" if r["rank_without"] is None else str(r["rank_without"])
        moved = f"[green]{was}[/green]" if r["rank_without"] is None or r["rank_without"] > r["rank"] else was
        factors = [f"{r['factors'][n]:.3f}" for n in names]
        table.add_row(
            str(r["rank"]), moved, shown(r["id"]), shown(r["title"]), *factors, *([f"{r['score']:.4f}"] if explain else [])
        )
    console.print(table)
    if explain and found["dropped"]:
        dropped: list[dict[str, Any]] = found["dropped"]
        console.print("left the list: " + "; ".join(shown(f"{d['title']} (was {d['rank_without']})") for d in dropped))
