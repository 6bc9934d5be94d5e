"""Every command: examples that are calls of it and parse, `--json` where it reports, and no example in the docs that fails."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from corewrite.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
NO_JSON = {("serve",): "runs until it is stopped, and answers over HTTP"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(command, path=()):
    """Every command and every group of them, by the words that call it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


ALL = dict(commands(typer.main.get_command(app)))
GROUPS = {path: c for path, c in ALL.items() if hasattr(c, "commands")}
COMMANDS = {path: c for path, c in ALL.items() if path not in GROUPS}


def parsed(call):
    """The command that a call names; a usage error where it has no such option or argument."""
    words = shlex.split(call, comments=True)
    stop = next((i for i, w in enumerate(words) if w in (">", "|", "&", "&&", ";", "2>&1") or w.startswith(">")), len(words))
    words = words[1:stop]
    path = next((p for n in (3, 2, 1) if (p := tuple(words[:n])) in COMMANDS), None)
    assert path is not None, f"`{call}` names no command"
    COMMANDS[path].make_context(" ".join(path), words[len(path) :])
    return path


def calls(text):
    return re.findall(r"`(corewrite [^`]+)`", text)


def test_all_commands_are_found():
    assert {("demo",), ("cycle", "run"), ("gate", "bench"), ("registry", "gc"), ("fusion", "tune")} < COMMANDS.keys()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_says_what_it_does_with_an_example_of_it_that_parses(path):
    command = COMMANDS[path]
    assert (command.help or "").strip(), "says what it does"
    found = [parsed(call) for call in calls(command.epilog or "")]
    call = f"corewrite {' '.join(path)}"
    assert path in found, f"an example of `{call}`"
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0 and call in " ".join(result.stdout.split())


@pytest.mark.parametrize("path", GROUPS, ids=lambda p: " ".join(p) or "corewrite")
def test_help_of_a_group_has_examples_of_its_commands(path):
    found = [parsed(call) for call in calls(GROUPS[path].epilog or "")]
    assert found and all(p[: len(path)] == path for p in found)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_and_argument_says_what_it_is(path):
    silent = [p.name for p in COMMANDS[path].params if not (getattr(p, "help", None) or "").strip() and p.name != "help"]
    assert not silent


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_what_it_reports_is_there_as_json(path):
    has = any("--json" in p.opts for p in COMMANDS[path].params)
    assert has != (path in NO_JSON)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_calls_in_the_docs_parse(page):
    text = page.read_text("utf-8")
    lines = [line.strip().removeprefix("$ ") for line in text.replace("\\\n", " ").splitlines() if line.startswith("    ")]
    for call in [line for line in lines if line.startswith("corewrite ")]:
        try:
            parsed(call)
        except Exception as error:  # typer brings a click of its own
            pytest.fail(f"{page.name}: {call}: {error}")


def test_a_wrong_option_would_be_found():
    with pytest.raises(Exception, match="no-such"):
        parsed("corewrite cycle run --no-such")
    with pytest.raises(AssertionError, match="names no command"):
        parsed("corewrite cycles run")
