"""`corewrite.yaml`: one file for every command, each of which reads the sections it needs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from corewrite.domain.earlier_config import as_written_now
from corewrite.domain.settings import Settings, validated
from corewrite.domain.strict_yaml import ConfigError, YamlDocument, read_yaml

SECTIONS: Mapping[str, str] = {
    "run": "run folder: registry, mined weeks, trainings, cycles",
    "documents": "the documents that are searched",
    "logs": "UBI logs, a file or folder a week",
    "labels": "raters' grades, for the judge",
    "frozen": "the evaluation set that never changes",
    "seed": "the one seed",
    "model": "the language model that the first warm start begins from",
    "max_new_tokens": "length limit of a served rewrite",
    "rewriter": "what no rewrite may bring in",
    "ranker": "what ranks in production: fusion spec, signals, recall",
    "warm_start": "supervised fine-tuning before the first training",
    "training": "semi-online MPO",
    "trackers": "where the metrics of a training are drawn while it runs",
    "sampling": "what samples for the training: a server, or a package's",
    "evaluation": "how many searches gate, probe and frozen set take",
    "judge": "what grades results at the gate",
    "gate": "the promotion gate",
    "margins": "frozen margins of the gate",
    "refresh": "what a cycle does before it trains",
    "recovery": "what follows a REJECT",
    "rollout": "who gets a promoted champion, and when it is rolled back",
    "privacy": "sealed logs, and how long what was mined is kept",
    "serve": "the HTTP server",
    "experiment": "reading and planning experiments",
}
"""Everything that may stand at the top of `corewrite.yaml`, and what it is about."""

T = TypeVar("T", bound=Settings)


def read_config(path: Path | None, kind: type[T], **given: object) -> T:
    """Read what a command needs of `corewrite.yaml`.

    Relative paths in it are taken from where the command runs.

    Args:
        path: The file; None where a command was started without one.
        kind: Its fields are the sections that the command needs; other sections are passed over.
        given: What the command line says instead of the file's sections; None: nothing.

    Raises:
        ConfigError: the file cannot be read, a name in it is no section's, or settings that this command needs are missing or
            refused; a line for each.
    """
    options = {name: value for name, value in given.items() if value is not None}
    if path is None:
        missing = [name for name, field in kind.model_fields.items() if field.is_required() and name not in options]
        if missing:
            raise ConfigError("\n".join(f"{n}: is needed ({SECTIONS[n]}): give the option, or --config FILE" for n in missing))
        return validated(YamlDocument("command line", None, options), kind)
    document = read_yaml(path, rewrite=lambda root: as_written_now(root, str(path)))
    if options and (document.value is None or isinstance(document.value, dict)):
        document = replace(document, value=(document.value or {}) | options)
    return validated(document, kind, sections=SECTIONS)
