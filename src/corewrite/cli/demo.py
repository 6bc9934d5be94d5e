"""`corewrite demo`."""

from pathlib import Path

import typer

from corewrite.cli.common import VERDICT_EXITS, print_json, progress_console, reported_errors, say

EXAMPLES = (
    "Examples: `corewrite demo` · `corewrite demo --seed 1 --out runs/seed-1` · `corewrite demo --model ./my-causal-lm` · "
    "`corewrite demo --miniature --json`"
)


def demo(
    seed: int = typer.Option(0, min=0, help="The one seed of the run."),
    out: Path = typer.Option(Path("runs/demo"), help="Folder for everything the run makes; an earlier demo there is replaced."),
    model: str | None = typer.Option(
        None, help="Path or name of a causal LM to start from; default: a small decoder from scratch."
    ),
    miniature: bool = typer.Option(False, help="A run of under a minute; its figures mean nothing."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Run the whole loop on the simulated platform: log, relevance model, warm start, training, gate, two A/B launches."""
    from corewrite.report.terminal import print_summary
    from corewrite.studies.quickstart.config import DemoConfig
    from corewrite.studies.quickstart.config import miniature as miniature_config
    from corewrite.studies.quickstart.run import run_demo

    config = miniature_config(seed) if miniature else DemoConfig(seed=seed)
    with reported_errors("it begins anew"):
        result = run_demo(config, out, console=progress_console(quiet=False), model=model)
    if as_json:
        print_json(result.summary)
    else:
        print_summary(result.summary)
        say("", f"report   {result.report}", f"summary  {out / 'summary.json'}")
        say(f'try      corewrite search "..." --run {out} --explain')
    raise typer.Exit(VERDICT_EXITS[result.summary["gate"]["verdict"]])
