"""The commands of `corewrite` as the command line knows them, and calls parsed by them; for tests of help and of docs."""

import shlex

import typer

from corewrite.cli.main import app


def commands(command, path=()):
    """Every command and every group of them, by the words that call it; former names, which are hidden, left out."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from commands(child, (*path, name))


ALL = dict(commands(typer.main.get_command(app)))
GROUPS = {path: c for path, c in ALL.items() if hasattr(c, "commands")}
COMMANDS = {path: c for path, c in ALL.items() if path not in GROUPS}


def named(words):
    """The command that words name, as a path; None where they name none."""
    return next((p for n in (3, 2, 1) if (p := tuple(words[:n])) in COMMANDS), None)


def parsed(call):
    """The command that a call names; a usage error where it has no such option or argument."""
    words = shlex.split(call, comments=True)
    stop = next((i for i, w in enumerate(words) if w in (">", "|", "&", "&&", ";", "2>&1") or w.startswith(">")), len(words))
    words = words[1:stop]
    path = named(words)
    assert path is not None, f"`{call}` names no command"
    COMMANDS[path].make_context(" ".join(path), words[len(path) :])
    return path
