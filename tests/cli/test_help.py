"""Every command: examples that are calls of it and parse, and `--json` where it reports."""

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app

sys.path.insert(0, str(Path(__file__).parents[1]))
from commands import COMMANDS, GROUPS, parsed

NO_JSON = {("serve",): "runs until it is stopped, and answers over HTTP"}


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


def test_a_wrong_option_would_be_found():
    with pytest.raises(Exception, match="no-such"):
        parsed("corewrite cycle run --no-such")
    with pytest.raises(AssertionError, match="names no command"):
        parsed("corewrite cycles run")
