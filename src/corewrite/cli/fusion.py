"""`corewrite fusion`."""

import json
from enum import StrEnum
from pathlib import Path

import typer

from corewrite.cli.common import print_json, reported_errors

EXAMPLES = (
    "Examples: `corewrite fusion compile fusion.yaml --to vespa --out schemas/video/corewrite.profile` · "
    "`corewrite fusion compile --to opensearch --feature \"query.prior=doc['popularity'].value\"` · "
    "`corewrite fusion compile fusion.yaml --to qdrant --json`"
)

app = typer.Typer(name="fusion", help="The fusion spec in your engine.", no_args_is_help=True, rich_markup_mode="markdown")


class Engine(StrEnum):
    """Engines a spec compiles to."""

    VESPA = "vespa"
    OPENSEARCH = "opensearch"
    ELASTICSEARCH = "elasticsearch"
    QDRANT = "qdrant"


@app.callback()
def fusion() -> None:
    """The fusion spec in your engine."""


@app.command("compile", epilog=EXAMPLES)
def compile_command(
    spec: Path | None = typer.Argument(None, help="The fusion spec, YAML; default: the packaged one."),
    to: Engine = typer.Option(help="Engine."),
    feature: list[str] = typer.Option(
        [],
        help="Where the engine finds a signal: query.NAME=FEATURE or rewrite.NAME=FEATURE, in the engine's language. "
        "Repeatable; docs/engines.md says what is taken otherwise.",
    ),
    out: Path | None = typer.Option(None, help="Write to this file instead of standard output."),
    as_json: bool = typer.Option(False, "--json", help="Wrap what is emitted in JSON with engine and spec hash."),
) -> None:
    """Write the ranking formula of a fusion spec as a rank profile (vespa) or a request body (the others)."""
    from corewrite.fusion import default_spec, load_spec
    from corewrite.fusion.compile import compile_spec

    features = {}
    for pair in feature:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"--feature {pair!r} must be query.NAME=FEATURE or rewrite.NAME=FEATURE")
        features[name] = value
    with reported_errors():
        loaded = default_spec() if spec is None else load_spec(spec)
        emitted = compile_spec(loaded, to.value, features)
        text = emitted if isinstance(emitted, str) else json.dumps(emitted, indent=1, ensure_ascii=False) + "\n"
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text, "utf-8")
    if as_json:
        print_json({"engine": to.value, "spec_hash": loaded.spec_hash, "out": out, "emitted": emitted})
    elif out is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"{out}: {to.value}, fusion spec {loaded.spec_hash[:12]}")
