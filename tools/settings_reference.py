"""Writes docs/reference/corewrite-yaml.md: every setting of corewrite.yaml, from the classes that read it."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from corewrite.cli.experiment_settings import ExperimentSections
from corewrite.cycle.config_sections import CycleSections, DataSections
from corewrite.deployment.explain import SearchSections
from corewrite.deployment.settings import RankerSection
from corewrite.domain import Settings
from corewrite.domain.config_file import SECTIONS
from corewrite.domain.settings import iterate_parts
from corewrite.gate import Margins
from corewrite.logs.privacy import LogSections, PrivacySections
from corewrite.serving.settings import ServeSections

PAGE = "reference/corewrite-yaml.md"
READERS: dict[str, type[Settings]] = {
    "`cycle`, `gate`, `fusion requests`": CycleSections,
    "`train`": DataSections,
    "`serve`, `warm`, `replay`": ServeSections,
    "`replay`": PrivacySections,
    "`search`": SearchSections,
    "`experiment`": ExperimentSections,
    "`ingest`": LogSections,
    "`fusion compile`, `fusion tune`": RankerSection,
}
HEAD = """\
# corewrite.yaml

One file, `corewrite.yaml`, for every command (`--config corewrite.yaml`, or `-c`): each reads the sections that it needs and
passes over the others. What a command's options say counts before the file. This page is made of the code by
`python tools/reference.py`.

```yaml
run: /var/lib/corewrite/run                   # registry, mined weeks, trainings, cycles
documents: /data/documents.parquet            # id, title, and any column that your ranker reads
logs: /data/search-logs                       # a week is a file <week>.ndjson[.gz] or a folder <week>; weeks sort by name
labels: /data/rated.parquet                   # query, document_id, grade
frozen: /srv/corewrite-gate/frozen.parquet    # apart from what training may read
ranker:
  spec: /etc/corewrite/fusion.yaml
  signals:
    relevance: {kind: kserve, url: "http://ranker:8000", model: ranker, version: "3"}
  recall: {kind: opensearch, url: "https://search:9200", index: videos}
training: {phases: 20, instances_per_phase: 20000}
serve:
  port: 8080
  log: {folder: /var/lib/corewrite/served, seal_to: /etc/corewrite/cycle.public, salt_env: COREWRITE_SALT}
```

- An unknown name, a value out of range, a name that stands twice, YAML aliases and merges (`<<`) are refused, all problems at
  once: `corewrite.yaml:7: trainning: unknown name; did you mean 'training'?`
- Relative paths, of the file as of options, are taken from where the command runs.
- What is required is so for the first command of those that read the section; others may take it from an option, or do without.
  "None" stands for a setting that is left out.
- Secrets stand in environment variables; the settings `..._env` name them.
- Files of the version before are read once more, with a warning that says where each setting belongs now: sections under
  `pipeline`, `server` (now `sampling`), `spec` (`ranker.spec`), and a file of its own for `corewrite serve` (section `serve`;
  `registry` is `run`, `engine` is `ranker.recall`). `serve.relevance` stands for that file's `relevance`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, "\n| section | about | read by |\n| --- | --- | --- |\n"]
    for name, about in SECTIONS.items():
        parts.append(f"| [`{name}`](#{name}) | {about} | {', '.join(readers_of(name))} |\n")
    described: dict[tuple[type[Settings], ...], str] = {}
    for name, about in SECTIONS.items():
        kind, field = first_reader(name)
        parts.append(f"\n## {name}\n\n{about[0].upper()}{about[1:]}.\n")
        inner = settings_in(field.annotation)
        if inner:
            parts += section(name, inner, described)
        else:
            parts.append(table([(name, field, meaning(kind, name))]))
    return "".join(parts)


def section(path: str, classes: list[type[Settings]], described: dict[tuple[type[Settings], ...], str]) -> Iterator[str]:
    """What may stand at a place: the settings of one class, or of each of several kinds.

    Args:
        path: Of the place.
        classes: That may stand there.
        described: Where settings of several kinds were described already; gets those of this place.
    """
    described[tuple(classes)] = path
    for one in classes:
        if len(classes) > 1:
            yield f"\n### {path} of {infer_kind(one)}\n\n{cell(summary(one))}\n"
        rows, several = [], []
        for place, field, text in load_rows(path, one):
            kinds = settings_in(field.annotation)
            if len(kinds) > 1:
                below = place + name_of(field)
                known = described.get(tuple(kinds))
                text += f" As `{known}`." if known else " Of several kinds, see below."
                several += [] if known else [(below, kinds)]
            rows.append((place, field, text))
        yield table(rows)
        for below, kinds in several:
            yield from section(below, kinds, described)


def load_rows(path: str, one: type[Settings]) -> Iterator[tuple[str, FieldInfo, str]]:
    """The settings of a class, those of a class inside it as if they were its own."""
    for name, field in one.model_fields.items():
        place, inner = f"{path}.{field.alias or name}", settings_in(field.annotation)
        if inner == [Margins]:
            yield f"{place}.CHECK", FieldInfo(annotation=float, default=None), f"{meaning(one, name)} {margins()}."
        elif len(inner) == 1:
            yield from load_rows(place + name_of(field), inner[0])
        else:
            yield place, field, meaning(one, name)


def name_of(field: FieldInfo) -> str:
    """What a path has for one entry, where settings stand in a mapping or a list."""
    kinds = {get_origin(p) for p in iterate_parts(field.annotation)}
    return ".NAME" if dict in kinds else "[]" if kinds & {list, tuple} else ""


def margins() -> str:
    """The margins that stand in the checks."""
    return ", ".join(f"`{name}` {value:g}" for name, value in Margins().as_dict().items())


def table(rows: list[tuple[str, FieldInfo, str]]) -> str:
    """Markdown of settings."""
    lines = ["", "| setting | value | default | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{path}` | {value_of(field)} | {default_of(field)} | {cell(text)} |" for path, field, text in rows]
    return "\n".join(lines) + "\n"


def readers_of(name: str) -> list[str]:
    """Commands that read a section."""
    return [who for who, kind in READERS.items() if name in kind.model_fields]


def first_reader(name: str) -> tuple[type[Settings], FieldInfo]:
    """The class that a section is described by."""
    kind = next(kind for kind in READERS.values() if name in kind.model_fields)
    return kind, kind.model_fields[name]


def settings_in(annotation: Any) -> list[type[Settings]]:
    """The settings classes in a type."""
    found = []
    for part in iterate_parts(annotation):
        if isinstance(part, type) and issubclass(part, Settings):
            found.append(part)
        elif get_origin(part) in (dict, list, tuple):
            found += [c for arg in get_args(part) if arg is not Ellipsis for c in settings_in(arg)]
    return list(dict.fromkeys(found))


def infer_kind(one: type[Settings]) -> str:
    """What `kind` is in settings that come in several."""
    names = get_args(one.model_fields["kind"].annotation)
    return f"kind `{names[0]}`" if names else "an installed package"


def value_of(field: FieldInfo) -> str:
    """What may be written, in words."""
    words = " or ".join(dict.fromkeys(word(p) for p in iterate_parts(field.annotation) if p is not type(None)))
    return words + "".join(f", {text}" for text in limits(field))


def word(part: Any) -> str:
    """One type in words."""
    origin, args = get_origin(part), get_args(part)
    if origin is Literal:
        return " or ".join(f"`{a}`" for a in args)
    if origin in (list, tuple):
        return "list"
    if origin is Mapping:
        key, value = (next(iterate_parts(arg)) for arg in args)
        return f"mapping of {word(key)} to {word(value)}"
    if origin is dict or (isinstance(part, type) and issubclass(part, Settings)):
        return "mapping"
    return {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}.get(part, str(part))


def limits(field: FieldInfo) -> Iterator[str]:
    """What bounds a number."""
    metadata = [*field.metadata]
    for part in [field.annotation, *get_args(field.annotation)]:
        if get_origin(part) is Annotated:
            metadata += [m for f in get_args(part)[1:] for m in getattr(f, "metadata", [f])]
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for constraint in metadata:
        for name, sign in signs.items():
            if (bound := getattr(constraint, name, None)) is not None:
                yield f"{sign} {bound:g}"


def default_of(field: FieldInfo) -> str:
    """The default, as it would be written."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if get_origin(field.annotation) is Mapping and value:
        return f"`{{{', '.join(f'{k}: {v:g}' for k, v in value.items())}}}`"
    if value is None or value == "" or isinstance(value, Settings | dict | tuple | list):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


@cache
def docstrings(one: type[Settings]) -> dict[str, str]:
    """The docstrings of a class's own attributes."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for line, after in zip(tree.body, tree.body[1:], strict=False):
        match line, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = text
    return found


def meaning(one: type[Settings], name: str) -> str:
    """What a setting is about."""
    return next(docstrings(c)[name] for c in one.__mro__ if issubclass(c, Settings) and name in docstrings(c))


def summary(one: type[Settings]) -> str:
    """The first paragraph of what a class says of itself."""
    return inspect.cleandoc(one.__doc__ or "").split("\n\n")[0]


def cell(text: str) -> str:
    """Text in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
