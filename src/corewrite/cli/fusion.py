"""`corewrite fusion`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from corewrite.cli.common import print_json, progress_console, reported_errors, say
from corewrite.storage.durable import naming

if TYPE_CHECKING:
    from corewrite.fusion import FusionSpec
    from corewrite.tuning.outcome import StageEstimate, TradeOff, Tuning, TuningOutcome

EXAMPLES = (
    "Examples: `corewrite fusion compile fusion.yaml --to vespa --out schemas/video/corewrite.profile` · "
    "`corewrite fusion compile --to opensearch --feature \"query.prior=doc['popularity'].value\"` · "
    "`corewrite fusion compile -c corewrite.yaml --to qdrant --json`"
)

REQUESTS_EXAMPLES = (
    "Examples: `corewrite fusion requests -c corewrite.yaml --out requests.parquet` · "
    "`corewrite fusion requests -c corewrite.yaml --week week-07 --limit 3000 --out requests.parquet --json`"
)

TUNE_EXAMPLES = (
    "Examples: `corewrite fusion tune requests.parquet --budget 0.02 --out tuned.yaml` · "
    "`corewrite fusion tune requests.parquet --config corewrite.yaml --json`"
)

_CONFIG = typer.Option(None, "--config", "-c", help="Settings, YAML: the fusion spec is their `ranker.spec`.")

app = typer.Typer(name="fusion", help="The fusion spec in your engine.", no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def fusion() -> None:
    """The fusion spec in your engine."""


@app.command("compile", epilog=EXAMPLES)
def compile_command(
    spec: Path | None = typer.Argument(None, help="The fusion spec, YAML; default: the settings', or the packaged one."),
    config: Path | None = _CONFIG,
    to: str = typer.Option(
        help="Engine: vespa, opensearch, elasticsearch, qdrant, or one that an installed package compiles to "
        "(docs/how-to/compile-spec.md)."
    ),
    feature: list[str] = typer.Option(
        [],
        help="Where the engine finds a signal: query.NAME=FEATURE or rewrite.NAME=FEATURE, in the engine's language. "
        "Repeatable; docs/how-to/compile-spec.md says what is taken otherwise.",
    ),
    out: Path | None = typer.Option(None, help="Write to this file instead of standard output."),
    as_json: bool = typer.Option(False, "--json", help="Wrap what is emitted in JSON with engine and spec hash."),
) -> None:
    """Write the ranking formula of a fusion spec as a rank profile (vespa) or a request body (the others)."""
    from corewrite.fusion.compilers import compile_spec, engine_names

    features = {}
    for pair in feature:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"--feature {pair!r} must be query.NAME=FEATURE or rewrite.NAME=FEATURE")
        features[name] = value
    with reported_errors():
        known = engine_names()
    if to not in known:
        raise typer.BadParameter(f"{to!r} is none of {', '.join(known)}", param_hint="--to")
    with reported_errors():
        loaded = _spec(spec, config)
        emitted = compile_spec(loaded, to, features)
        text = emitted if isinstance(emitted, str) else json.dumps(emitted, indent=1, ensure_ascii=False) + "\n"
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            with naming(out):
                out.write_text(text, "utf-8")
    if as_json:
        print_json({"engine": to, "spec_hash": loaded.spec_hash, "out": out, "emitted": emitted})
    elif out is None:
        say(*text.removesuffix("\n").split("\n"))
    else:
        say(f"{out}: {to}, fusion spec {loaded.spec_hash[:12]}")


@app.command("requests", epilog=REQUESTS_EXAMPLES)
def requests_command(
    out: Path = typer.Option(help="File to write, Parquet, for `corewrite fusion tune`."),
    config: Path = typer.Option(Path("corewrite.yaml"), "--config", "-c", help="Settings of the cycle, YAML."),
    week: str | None = typer.Option(None, help="Week whose gate users' searches are taken; default: the last finished one."),
    limit: int = typer.Option(1_500, min=40, help="Searches at most."),
    as_json: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
) -> None:
    """Make the requests to tune on of a cycle's log: candidates, grades, signals under good and broken rewrites."""
    from corewrite.cycle.config_sections import load_cycle_config
    from corewrite.report.progress import ProgressSteps
    from corewrite.tuning.requests import log_requests, write_requests

    with reported_errors():
        settings = load_cycle_config(config)
        table, about = log_requests(settings, week, limit, steps=ProgressSteps(progress_console(as_json)))
        write_requests(table, out)
    kinds = list(dict.fromkeys(name.split(".")[1] for name in table.column_names if name.startswith("rewrite.")))
    requests = len(table["request_id"].unique())
    if as_json:
        print_json({"out": out, "requests": requests, "rows": len(table), "kinds": kinds, **about})
    else:
        say(f"{out}: {requests} requests of {about['week']}, {len(table)} rows, rewrites: {', '.join(kinds)}")


@app.command("tune", epilog=TUNE_EXAMPLES)
def tune_command(
    requests: Path = typer.Argument(help="Requests with their signals, Parquet; docs/how-to/tune.md says which columns."),
    budget: float = typer.Option(0.02, min=0, help="Largest relative loss of nDCG@10 under any broken rewriter."),
    spec: Path | None = typer.Option(
        None, help="The fusion spec whose finerank is tuned; default: the settings', or the packaged one."
    ),
    config: Path | None = _CONFIG,
    out: Path | None = typer.Option(None, help="Write the tuned spec to this file."),
    as_json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Choose clips, exponents and eps: the largest gain whose loss under the worst broken rewriter stays in a budget."""
    from corewrite.report.progress import ProgressSteps
    from corewrite.tuning.files import random_pair_eps, read_requests, tuned_spec, write_spec
    from corewrite.tuning.search import tune

    with reported_errors():
        base = _spec(spec, config)
        read = read_requests(requests)
        with ProgressSteps(progress_console(as_json)).step("try settings") as progress:
            found = tune(base.finerank, read, budget=budget, progress=progress)
        eps = random_pair_eps(read, base.finerank)
        tuned = tuned_spec(base, found.tuned.stage)
        if out is not None:
            write_spec(tuned, out, found.tuned)
    if as_json:
        print_json(_tuning_json(found, eps, tuned) | {"out": out})
    else:
        say(*_tuning_text(found, eps).split("\n"))
        if out is not None:
            say(f"{out}: fusion spec {tuned.spec_hash[:12]}")


def _spec(file: Path | None, config: Path | None) -> "FusionSpec":
    """The fusion spec of a file, else of the settings, else the packaged one."""
    from corewrite.deployment.settings import RankerSection
    from corewrite.domain.config_file import read_config
    from corewrite.fusion import default_spec, load_spec

    found = file or read_config(config, RankerSection).ranker.spec
    return default_spec() if found is None else load_spec(found)


def _tuning_json(found: "Tuning", eps: dict[str, float], tuned: "FusionSpec") -> dict[str, Any]:
    def of(t: "TradeOff") -> dict[str, Any]:
        rewrites = [[j.model_dump(mode="json") for j in s.rewrite] for s in (t.stage, *t.fold_stages)]
        return {
            "budget": t.budget,
            "rewrite": rewrites[0],
            "fold_rewrites": rewrites[1:],
            "chosen": asdict(t.chosen),
            "held_out": asdict(t.held_out),
        }

    return {
        "requests": found.requests,
        "groups": found.groups,
        "settings": found.settings,
        "ndcg10_without_rewriter": found.quality_without,
        "base": asdict(found.base),
        "tuned": of(found.tuned),
        "curve": [of(t) for t in found.curve],
        "random_pair_eps": eps,
        "spec_hash": tuned.spec_hash,
        "spec": tuned.model_dump(mode="json"),
    }


def _tuning_text(found: "Tuning", eps: dict[str, float]) -> str:
    """What was chosen, what it does to users or conversations it was not chosen on, and the curve."""
    t = found.tuned
    lines = [
        f"{found.requests} requests of {found.groups} users or conversations, nDCG@10 {found.quality_without:.4f} without "
        f"rewriter; {found.settings} settings tried",
        "",
        "signal           eps      lo       hi       exponent  divided by  eps of random pairs",
    ]
    for j in t.stage.rewrite:
        divisor = "the query's" if j.relative_to == "original" else f"{j.n:g}"
        lines.append(
            f"{j.signal:<16} {j.eps:<8.4g} {j.lo:<8.4g} {j.hi:<8.4g} {j.exponent:<9.4g} {divisor:<11} {eps[j.signal]:.4g}"
        )
    lines += ["", f"{'':<28} {'gain, champion':<28} largest loss, broken rewriters"]
    for name, outcome in (
        ("spec as it was", found.base),
        ("chosen, same requests", t.chosen),
        ("chosen, held-out requests", t.held_out),
    ):
        lines.append(_outcome_line(name, outcome))
    lines += ["", "held out, by broken rewriter:"]
    lines += [f"  {kind:<26} {_figure(loss)}" for kind, loss in t.held_out.loss.items()]
    lines += ["", "budget -> held-out gain and largest loss:"]
    lines += [_outcome_line(f"  {row.budget:.1%}", row.held_out) for row in found.curve]
    if not any(j.exponent for j in t.stage.rewrite):
        lines += [
            "",
            f"No setting with a gain keeps the upper bound of the loss within {t.budget:.1%}: what is chosen is no rewriter at "
            "all. A larger budget, or requests of more users, may allow one.",
        ]
    return "\n".join(lines)


def _outcome_line(name: str, outcome: "TuningOutcome") -> str:
    return f"{name:<28} {_figure(outcome.gain):<28} {_figure(outcome.worst)}"


def _figure(e: "StageEstimate") -> str:
    return f"{e.value:+.2%} [{e.low:+.2%}, {e.high:+.2%}]"
