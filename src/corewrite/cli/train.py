"""`corewrite train`."""

from pathlib import Path

import typer

from corewrite.cli.common import VERDICT_EXITS, print_json, progress_console, reported_errors, say

EXAMPLES = (
    "Examples: `corewrite train --config corewrite.yaml` · `corewrite train -c corewrite.yaml --out runs/again --seed 1` · "
    "`corewrite train --documents docs.parquet --earlier-log w1.ndjson.gz --log w2.ndjson.gz --labels labels.parquet "
    "--out runs/mine --spec fusion.yaml --model ./my-causal-lm`"
)


def train(
    config: Path | None = typer.Option(
        None,
        "--config",
        "-c",
        help="Settings, YAML (docs/reference/corewrite-yaml.md); what the other options say counts before it.",
    ),
    documents: Path | None = typer.Option(
        None, help="Parquet: id, title; and where you have them text, visual (list of floats), seconds, prior."
    ),
    earlier_log: list[Path] = typer.Option(
        [],
        help="UBI log of an earlier window: the relevance model is fitted on it. Repeatable. Default: the weeks before the "
        "newest of the settings' `logs`, `refresh.relevance_windows` of them.",
    ),
    log: list[Path] = typer.Option(
        [],
        help="UBI log of the window whose searches give the reward its instances. Repeatable. Default: the newest week of "
        "the settings' `logs`.",
    ),
    labels: Path | None = typer.Option(
        None,
        help="Parquet of rated results for the judge: query, document_id, grade 0-3 (and context_queries, "
        "context_titles, locale).",
    ),
    out: Path | None = typer.Option(
        None, help="Run folder; default: the settings' `run`. A run that was killed continues from its last whole phase."
    ),
    spec: Path | None = typer.Option(None, help="Fusion spec; default: the settings' `ranker.spec`, or the packaged one."),
    model: str | None = typer.Option(
        None, help="Path or name of a causal LM; default: the settings', or a small decoder trained from scratch."
    ),
    seed: int | None = typer.Option(None, min=0, help="The one seed; default: the settings', 0."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Train a rewriter on your own log and documents, and let the gate decide whether it is promoted."""
    from corewrite.cycle import train_on_logs
    from corewrite.cycle.config_sections import DataSections
    from corewrite.cycle.weeks import split_windows
    from corewrite.domain.config_file import read_config
    from corewrite.fusion import default_spec, load_spec
    from corewrite.logs.sealing import load_keys
    from corewrite.report.progress import ProgressSteps

    with reported_errors("it goes on from the last checkpoint in the run folder"):
        settings = read_config(config, DataSections, run=out, documents=documents, labels=labels, seed=seed, model=model)
        earlier, window = split_windows(settings.logs, earlier_log, log, settings.refresh.relevance_windows)
        formula, keys = spec or settings.ranker.spec, settings.privacy.keys
        run = train_on_logs(
            settings.documents,
            earlier,
            window,
            settings.labels,
            settings.run,
            spec=default_spec() if formula is None else load_spec(formula),
            ranker=settings.ranker,
            config=settings.pipeline,
            seed=settings.seed,
            model=settings.model,
            unseal=None if keys is None else load_keys(keys).open_line,
            steps=ProgressSteps(progress_console(quiet=False)),
        )
    decided = run.decision
    if as_json:
        print_json(
            {
                "gate": run.gate.as_dict(),
                "provenance": run.provenance.as_dict(),
                "decision": decided.number,
                "verdict": decided.verdict,
                "reason": decided.reason,
                "champion": run.compared_with,
                "labels": run.labels,
            }
        )
    else:
        for check in run.gate.checks:
            say(f"{check.verdict:<8} {check.name:<28} {check.reason}")
        against = "the warm start" if run.compared_with is None else f"champion {run.compared_with[:12]}"
        say(f"{decided.verdict.upper()}, compared with {against}: {decided.reason}")
    raise typer.Exit(VERDICT_EXITS[decided.verdict])
