"""`corewrite init`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer
import yaml

from corewrite.cli.common import Exit, progress_console, reported_errors, say
from corewrite.cli.doctor import examine, show

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

EXAMPLES = (
    "Examples: `corewrite init --documents docs.parquet --logs logs --labels rated.parquet` · "
    "`corewrite init --documents docs --logs logs --labels rated.parquet --run /var/lib/corewrite/run --model ./my-causal-lm "
    "--config /etc/corewrite/corewrite.yaml --spec /etc/corewrite/fusion.yaml --force`"
)
_PLAIN = re.compile(r"[\w./][\w./-]*", re.ASCII)
"""Text that YAML needs no quotes for, unless it reads as something else, which `_scalar` looks at."""


def init(
    documents: Path = typer.Option(help="Parquet of documents, or a folder of them: id, title, and what your ranker reads."),
    logs: Path = typer.Option(help="Folder of UBI logs: a week is a file or a folder; weeks sort by name."),
    labels: Path = typer.Option(help="Parquet of rated results: query, document_id, grade 0-3."),
    run: Path = typer.Option(Path("run"), help="Run folder: registry, mined weeks, trainings, cycles."),
    frozen: Path = typer.Option(
        Path("kept/frozen.parquet"), help="Evaluation set that never changes, apart from what training may read."
    ),
    model: str | None = typer.Option(None, help="Path or name of a causal LM; default: a small decoder trained from scratch."),
    config: Path = typer.Option(Path("corewrite.yaml"), "--config", "-c", help="Settings to write."),
    spec: Path = typer.Option(Path("fusion.yaml"), help="Fusion spec to write: the packaged one, to change."),
    force: bool = typer.Option(False, help="Write over files that are there."),
    as_json: bool = typer.Option(False, "--json", help="Print what was written and found as JSON."),
) -> None:
    """Write `corewrite.yaml` and `fusion.yaml` for your data, with a comment on every section, and check all that they name as
    `corewrite doctor` does. Exit code 1 where something is wrong; the files are written."""
    from importlib.resources import files

    from corewrite.report.progress import ProgressSteps
    from corewrite.storage.durable import whole_file

    paths = {"run": run, "documents": documents, "logs": logs, "labels": labels, "frozen": frozen}
    texts = {
        config: settings_text({name: str(path) for name, path in paths.items()}, str(spec), model),
        spec: (files("corewrite.fusion") / "default.yaml").read_text("utf-8"),
    }
    with reported_errors():
        if config.resolve() == spec.resolve():
            raise ValueError(f"--config and --spec are both {config}: name two files")
        there = [str(file) for file in texts if file.exists()]
        if there and not force:
            are = "is" if len(there) == 1 else "are"
            raise FileExistsError(
                f"{' and '.join(there)} {are} there already: name other files (--config, --spec), or give --force"
            )
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(file) as temporary:
                temporary.write_text(text, "utf-8")
        findings = list(examine(config, ProgressSteps(progress_console(quiet=as_json))))
    if not as_json:
        say(f"written  {config}", f"written  {spec}", "")
    show(findings, as_json=as_json)
    if not all(f.ok for f in findings):
        raise typer.Exit(Exit.FAILED)
    if not as_json:
        say("", f"next     corewrite train --config {config}")


def settings_text(paths: dict[str, str], spec: str, model: str | None) -> str:
    """`corewrite.yaml`: what has to be named, and every other section with its defaults, commented out.

    Args:
        paths: By the name of their section.
        spec: Fusion spec.
        model: Path or name of a causal LM; None: left commented out.
    """
    from corewrite.cli.experiment_settings import ExperimentSections
    from corewrite.cycle.config_sections import CycleSections
    from corewrite.domain.config_file import SECTIONS
    from corewrite.serving.settings import ServeSections

    lines = [
        "# Settings of corewrite: every command reads the sections that it needs.",
        "# docs/reference/corewrite-yaml.md says what each setting is.",
        "# Relative paths are taken from where the command runs. Lines with a # and no blank after it are the defaults.",
        "",
    ]
    for name, path in paths.items():
        lines.append(f"{f'{name}: {_scalar(path)}':<44}  # {SECTIONS[name]}")
    lines += [
        "",
        f"# {SECTIONS['ranker']}",
        "ranker:",
        f"  spec: {_scalar(spec)}",
        "  # signals:               # where they come from; the bundled model's `relevance` and `dense` need not be named",
        "  #   relevance: {kind: kserve, url: 'http://localhost:8000', model: ranker, version: '1'}",
        "  # recall: {kind: opensearch, url: 'https://localhost:9200', index: documents}",
        "",
        f"# {SECTIONS['model']}; without one a small decoder is trained from scratch",
        "#model: ./my-causal-lm" if model is None else f"model: {_scalar(model)}",
    ]
    fields = {**ExperimentSections.model_fields, **ServeSections.model_fields, **CycleSections.model_fields}
    for name in SECTIONS:
        if name not in {*paths, "ranker", "model"} and (shown := _defaults(name, fields[name])):
            lines += ["", f"# {SECTIONS[name]}", *(f"#{line}" for line in shown)]
    return "\n".join(lines) + "\n"


def _defaults(name: str, field: "FieldInfo") -> list[str]:
    """A section with its defaults, as lines of YAML; what is None is left out."""
    from pydantic import BaseModel

    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return [] if value is None else str(yaml.safe_dump({name: value}, sort_keys=False, width=120)).splitlines()


def _scalar(text: str) -> str:
    """A text as YAML writes it."""
    if _PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10_000)).strip()
