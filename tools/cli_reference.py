"""Writes docs/reference/cli.md: every command, its arguments and options, from the commands themselves."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import typer
from page_tables import table
from settings_reference import word

from corewrite.cli.main import app
from corewrite.domain.settings import iterate_parts

PAGE = "reference/cli.md"
HEAD = """\
# Command line

Made by `python tools/reference.py` from the commands; `corewrite COMMAND --help` says the same. `corewrite` without a command
lists them, `corewrite --version` prints the version. Settings that several commands share stand in one file,
[corewrite.yaml](corewrite-yaml.md); an option counts before the file.

## Exit codes

| code | meaning |
| --- | --- |
| 0 | done; of the gate: promote |
| 1 | failed; the message names the fix |
| 2 | wrong usage |
| 3 | the gate holds the candidate: [what to do](../how-to/recover.md) |
| 4 | the gate rejects the candidate: [what to do](../how-to/recover.md) |
| 5 | some log lines could not be used |
| 130 | stopped by Ctrl-C; the long commands say from where they go on |

"""


def page() -> str:
    """The page."""
    commands = list(_commands(typer.main.get_command(app), ()))
    index = table(("command", "what it does"), ((f"[`{name(p)}`](#{anchor(p)})", first_sentence(c)) for p, c in commands))
    return HEAD + "## Commands\n\n" + index + "".join(_section(path, command) for path, command in commands)


def name(path: tuple[str, ...]) -> str:
    """How a command is called."""
    return " ".join(("corewrite", *path))


def anchor(path: tuple[str, ...]) -> str:
    """Of the command's heading."""
    return "-".join(("corewrite", *path))


def first_sentence(command: Any) -> str:
    """What a command does, in short."""
    return re.split(r"(?<=[.:;])\s", " ".join((command.help or "").split()), maxsplit=1)[0].rstrip(":;")


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for called, child in children.items():
        if not child.hidden:  # a former name of another command
            yield from _commands(child, (*path, called))


def _section(path: tuple[str, ...], command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    words = [p.name if p.required else f"[{p.name}]" for p in arguments]
    words = [word + "..." if p.nargs == -1 else word for word, p in zip(words, arguments, strict=True)]
    usage = " ".join((name(path), *words, *(["[OPTIONS]"] if options else [])))
    parts = [f"\n## {name(path)}\n\n`{usage}`\n\n{inspect.cleandoc(command.help or '')}\n"]
    rows = [(f"`{p.name}`", _kind(p), _default(p), p.help or "") for p in arguments]
    rows += [(" ".join(f"`{o}`" for o in (*p.opts, *p.secondary_opts)), _kind(p), _default(p), p.help or "") for p in options]
    if rows:
        parts.append("\n" + table(("argument or option", "value", "default", "meaning"), rows))
    if command.epilog:
        parts.append(f"\n{' '.join(command.epilog.split())}\n")
    return "".join(parts)


def _kind(param: Any) -> str:
    """What may be given, in words."""
    if getattr(param, "is_flag", False):
        return "flag"
    annotation = param.type_descriptor.annotation
    parts = [p for p in iterate_parts(annotation) if p is not type(None)]
    several = any(get_origin(p) in (list, tuple) for p in parts)
    parts = [x for p in parts for x in (get_args(p) if get_origin(p) in (list, tuple) else (p,)) if x is not Ellipsis]
    bounds = [f"{sign} {b:g}" for sign, b in (("at least", param.min), ("at most", param.max)) if b is not None]
    words = " or ".join(dict.fromkeys(word(p) for p in parts))
    return ", ".join((words, *bounds)) + (", repeatable" if several else "")


def _default(param: Any) -> str:
    if param.required:
        return "required"
    if param.default is None or callable(param.default) or param.default in ((), [], False, ""):
        return ""
    return f"`{param.default}`"
