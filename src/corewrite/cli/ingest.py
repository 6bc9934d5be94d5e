"""`corewrite ingest`."""

from pathlib import Path
from typing import Any

import typer

from corewrite.cli.common import Exit, print_json, reported_errors, say
from corewrite.storage.durable import make_private, naming

EXAMPLES = (
    "Examples: `corewrite ingest log.ndjson.gz` · `corewrite ingest monday.ndjson tuesday.ndjson --out runs/week` · "
    "`corewrite ingest --config corewrite.yaml --json`"
)


def ingest(
    files: list[Path] | None = typer.Argument(
        None,
        help="UBI NDJSON, plain or .gz, or folders of it: one document per line, bulk layout, or search hits as exports have "
        "them; default: the newest week of the settings' `logs`.",
    ),
    config: Path | None = typer.Option(None, "--config", "-c", help="Settings, YAML: logs, seed, privacy."),
    out: Path | None = typer.Option(None, help="Folder for searches.parquet, instances.parquet and rejects.ndjson."),
    seed: int | None = typer.Option(None, min=0, help="For the random negatives of the instances; default: the settings', 0."),
    as_json: bool = typer.Option(False, "--json", help="Print what was found as JSON."),
) -> None:
    """Read a search log: sessions, reformulation chains, how every search ended, training instances."""
    import pyarrow.parquet as pq

    from corewrite.domain import Catalogue
    from corewrite.domain.config_file import read_config
    from corewrite.domain.extras import require_extras
    from corewrite.logs import find_outcomes, fit_propensity, mine_instances, read_log, write_instances
    from corewrite.logs.files import log_files
    from corewrite.logs.outcomes import CHAIN_GAP
    from corewrite.logs.privacy import LogSections
    from corewrite.logs.sealing import load_keys

    with reported_errors():
        require_extras("train")
        settings = read_config(config, LogSections, seed=seed)
        files = [file for path in files or _newest(settings.logs) for file in log_files(path)]
        keys = settings.privacy.keys
        rejects = (out or files[0].parent) / (f"{files[0].name}.rejects.jsonl" if out is None else "rejects.ndjson")
        log = read_log(files, rejects_path=rejects, unseal=None if keys is None else load_keys(keys).open_line)
        outcomes = find_outcomes(log)
        documents = sorted({d for hits in outcomes.hit_ids for d in hits})
        try:
            propensity = fit_propensity(outcomes)
        except ValueError as error:
            instances, why = [], str(error)
        else:
            instances, why = mine_instances(outcomes, propensity, Catalogue.of_ids(documents), seed=settings.seed), ""
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            with naming(out / "searches.parquet"):
                pq.write_table(outcomes.to_arrow(), make_private(out / "searches.parquet"))
            write_instances(instances, out / "instances.parquet")
    report, shares, unknown = log.report, outcomes.shares(), outcomes.unknown()
    found: dict[str, Any] = {
        **report.as_dict(),
        "documents_displayed": len(documents),
        "sessions": len(set(outcomes.session_id)),
        "chains": len(set(outcomes.chain.tolist())),
        "satisfaction_told_by": outcomes.rule if any(outcomes.clicked) else None,
        "outcomes": shares if unknown is None else dict.fromkeys(shares),
        "outcomes_unknown": unknown,
        "searches_not_ended": outcomes.num_censored,
        "instances": len(instances),
    }
    warnings = list(report.warnings)
    if why:
        warnings.append(f"no training instances: {why}")
    if 2 * outcomes.num_censored > len(outcomes):
        warnings.append(
            f"{outcomes.num_censored} of {len(outcomes)} searches came within {CHAIN_GAP / 60:.0f} minutes of the log's end: "
            "how they ended is not known yet, and they teach nothing. Bring a longer log, or one with a later line"
        )
    found["warnings"] = warnings
    if as_json:
        print_json(found)
    else:
        _print(found)
    if report.rejected:
        say(
            f"{report.rejected} of {report.lines} lines could not be used: see {report.rejects_path}; the first: "
            f"{report.first_reject}",
            err=as_json,
        )
        raise typer.Exit(Exit.REJECTS)
    say(f"all {report.lines} lines were used", err=as_json)


def _newest(logs: Path | None) -> list[Path]:
    from corewrite.cycle.weeks import weekly_logs

    if logs is None:
        raise ValueError("say which log to read: its files, or `logs:` in the settings (--config)")
    weeks = list(weekly_logs(logs).values())
    if not weeks:
        raise ValueError(f"logs {logs} holds no log: a week is a file <week>.ndjson[.gz] or a folder of such")
    return weeks[-1]


def _print(found: dict[str, Any]) -> None:
    say(f"{', '.join(found['files'])}: {found['lines']} lines, {found['first']} to {found['last']}")
    say(
        f"searches   {found['queries']} of {found['clients']} clients, {found['unique_queries']} distinct texts, "
        f"{found['folded']} repeated query ids folded"
    )
    actions = ", ".join(f"{n} {name}" for name, n in found["actions"].items())
    say(f"events     {actions or 'none'} ({found['orphans']} of unknown searches)")
    say(
        f"sessions   {found['sessions']}, {found['chains']} reformulation chains; "
        f"satisfaction told by {found['satisfaction_told_by'] or 'nothing'}"
    )
    if found["outcomes_unknown"] is not None:
        say(f"outcomes   unknown: {found['outcomes_unknown']}")
    else:
        shares = ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in found["outcomes"].items())
        say(f"outcomes   {shares}")
    say(f"instances  {found['instances']}")
    for warning in found["warnings"]:
        say(f"note       {warning}", fg="yellow")
