"""Untrusted text does no more than be shown."""

import ast
import io
import json
import logging
import unicodedata
import warnings
from pathlib import Path

import pytest
import regex  # comes with transformers
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from corewrite.cli import common
from corewrite.cli.main import app
from corewrite.cli.search import _print
from corewrite.domain.shown import BLANK, spelled, visible

CLI = Path(common.__file__).parent


def test_visible() -> None:
    assert visible(" a\n\tb\u202ecod.exe\x1b[31m\ud800 ") == "a b<U+202E>cod.exe<U+001B>[31m<U+D800>"
    assert visible("👩\u200d🔬 می\u200cخواهم") == "👩\u200d🔬 می\u200cخواهم"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u3164b", "a<U+3164>b"),  # Hangul filler: a letter to Unicode, nothing to the eye
        ("\uffa0\u115f\u1160\u034f", "<U+FFA0><U+115F><U+1160><U+034F>"),
        ("\u2800", "<U+2800>"),
        ("\x9b31m", "<U+009B>31m"),  # C1: an escape sequence of one character
        ("a\x7fb\u2066c\u061c", "a<U+007F>b<U+2066>c<U+061C>"),
        ("a\u2028b\u0085c", "a b c"),
        ("tag\U000e0041", "tag<U+E0041>"),
        ("❤\ufe0f 葛\U000e0100", "❤\ufe0f 葛\U000e0100"),  # how a picture or a character is written
        ("a\ufe0f\ufe01\ufe0f", "a\ufe0f<U+FE01><U+FE0F>"),  # but a run of them holds a message
        ("\ufe0fa \ufe0f", "<U+FE0F>a <U+FE0F>"),
        ("\u180bx", "<U+180B>x"),
    ],
)
def test_what_is_invisible_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters() | st.sampled_from([*sorted(BLANK), "\ufe0f", "\u202e", "\x9b", "\x1b", "\n"])))
def test_shown_text_hides_nothing(text: str) -> None:
    for shown in (visible(text), spelled(text)):
        assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\u200c\u200d"]
        assert BLANK.isdisjoint(shown)
    assert visible(visible(text)) == visible(text)
    assert spelled(text, keep="\n").count("\n") == text.count("\n")


def test_nothing_passes_that_unicode_lets_a_program_leave_out() -> None:
    ignorable = regex.compile(r"\p{Default_Ignorable_Code_Point}")
    passed = [c for c in map(chr, range(0x110000)) if ignorable.match(c) and spelled(f"a{c}{c}b") == f"a{c}{c}b"]
    assert set(passed) <= set("\u200c\u200d")  # part of the spelling of words


def test_spelled_keeps_the_layout() -> None:
    assert spelled("   1  a\x1b[0m") == "   1  a<U+001B>[0m"
    assert spelled("a\nerror: b") == "a<U+000A>error: b"
    assert spelled("a\nerror: b", keep="\n") == "a\nerror: b"


HOSTILE = "\x1b]0;x\x07\x9b2J\u202e\u3164 \x7f\r"


def assert_harmless(text: str) -> None:
    assert text == spelled(text, keep="\n")


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_json({"title": HOSTILE, HOSTILE: 1, "name": "Löwe"})
    out = capsys.readouterr().out
    assert out.isascii() and "\x7f" not in out and all(c.isprintable() or c == "\n" for c in out)
    assert json.loads(out) == {"title": HOSTILE, HOSTILE: 1, "name": "Löwe"}


def test_every_line_of_a_command_goes_through_one_function() -> None:
    """`say` and `print_json`, but for tables, whose cells are `visible`."""
    wrong = []
    for file in sorted({*CLI.glob("*.py")} - {CLI / "common.py"}):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
            by_rich = file.name in ("search.py", "simulate.py", "eval_table.py") and isinstance(called, ast.Attribute)
            if name in ("echo", "secho") or (name == "print" and not by_rich):
                wrong.append(f"{file.name}:{node.lineno}")
    assert wrong == []


def test_say(capsys: pytest.CaptureFixture[str]) -> None:
    common.say(f"reason  {HOSTILE}", err=True)
    assert capsys.readouterr().err == f"reason  {spelled(HOSTILE)}\n"


def test_errors_warnings_and_logs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(common.typer.Exit), common.reported_errors():
        raise ValueError(f"two lines\n{HOSTILE}")
    assert_harmless(capsys.readouterr().err)
    with common.plain_messages():
        assert warnings.formatwarning(HOSTILE, UserWarning, "x", 1) == f"warning: {spelled(HOSTILE)}\n"
        record = logging.LogRecord("corewrite", logging.WARNING, "x", 1, "an engine said\n%s", (HOSTILE,), None)
        assert logging.lastResort is not None
        assert logging.lastResort.format(record) == f"an engine said\n{spelled(HOSTILE)}"


def test_names_of_actions_in_a_log(tmp_path: Path) -> None:
    at = "2026-11-24T00:00:00Z"
    shared = {"application": "a", "query_id": "q", "client_id": "c", "timestamp": at}
    lines = [
        {**shared, "user_query": "x", "query_response_hit_ids": []},
        {**shared, "action_name": HOSTILE, "event_attributes": {}},
    ]
    (tmp_path / "log.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for option in ((), ("--json",)):
        result = CliRunner().invoke(app, ["ingest", str(tmp_path / "log.ndjson"), *option])
        assert "U+202E" in result.output or "u202e" in result.output, result.output
        assert_harmless(result.output)


def test_titles_of_a_search() -> None:
    result = {
        "rank": 1,
        "rank_without": None,
        "id": HOSTILE,
        "title": f"[red]{HOSTILE}",
        "factors": {HOSTILE: 1.0},
        "score": 1.0,
    }
    found = {
        "rewrite": HOSTILE, "results": [result], "dropped": [{"title": HOSTILE, "rank_without": 3}],
        "candidates": {"original": 1, "rewrite_only": 0, "finerank": 1}, "signal_status": {HOSTILE: "ok"},
    }  # fmt: skip
    for explain in (False, True):
        out = io.StringIO()
        _print(Console(file=out, width=1_000), found, explain)
        text = out.getvalue()
        assert_harmless(text)
        assert text.count("<U+202E>") == (6 if explain else 3) and "[red]" in text
