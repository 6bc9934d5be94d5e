import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from corewrite.report import print_gate, render_gate, render_report

HOSTILE = 'query "<img src=x onerror=alert(1)>" \x1b[2J'

Reader = Callable[[str], Any]


def check(name: str, verdict: str, *numbers: float | None, **changes: Any) -> dict[str, Any]:
    candidate, champion, difference, low, high, margin = numbers
    return {
        "name": name, "question": f"Is {name} as it should be?", "kind": "guardrail", "candidate": candidate,
        "champion": champion, "difference": difference, "low": low, "high": high, "margin": margin, "n": 19873,
        "p_value": 0.00041, "verdict": verdict, "reason": f"{name} says {verdict}", **changes,
    }  # fmt: skip


@pytest.fixture
def result() -> dict[str, Any]:
    return {
        "verdict": "reject", "reason": f"harm_rate fails: {HOSTILE}", "users": 4120, "queries": 19873,
        "effective_users": 1113.7,
        "checks": [
            check("fused_reward", "pass", 0.0791, 0.0580, 0.0211, 0.0187, 0.0235, 0.0, kind="reward", compare="champion"),
            check("harm_rate", "fail", 0.211, 0.0, -0.211, -0.2204, -0.2011, 0.03, compare="no rewriter",
                  mitigation="stronger KL <b>", effective_users=1113.7, users_needed=1373),
            check("p99_latency_ms", "unclear", 112.3456, 98.1234, -14.2222, -18.1234, -10.1234, 15.0),
            check("kl_to_lineage", "skipped", None, None, None, None, None, None, reason="needs a lineage: there is none",
                  mitigation="shorter steps", p_value=None, n=0),
            check("distinct_2", "error", None, None, None, None, None, 0.1, reason=HOSTILE, p_value=None),
        ],
    }  # fmt: skip


def test_page_shows_every_check_with_its_figures(read: Reader, result: dict[str, Any]) -> None:
    page = read(render_gate(result, {"candidate": "c0ffee", "week": 12, "machine": "AMD EPYC", "seconds": 2.13}))
    rows = page.tables["gate"][1:]
    assert [r[1] for r in rows] == ["pass", "fail", "unclear", "skipped", "error"]
    assert rows[0][2:6] == ["0.0791", "0.0580", "+0.0211", "+0.0187 to +0.0235"]
    assert rows[0][7:] == ["0", "0.00041", "19,873", "–", "fused_reward says pass"], "of an earlier version"
    assert rows[1][10] == "1,1141,373 needed"
    assert rows[1][3] == "0.0000no rewriter" and rows[1][11] == "harm_rate says failMitigation: stronger KL <b>"
    assert rows[2][2:6] == ["112.3456", "98.1234", "-14.2222", "-18.1234 to -10.1234"]
    assert rows[3][2:9] == ["–"] * 7 and rows[3][9] == "0"
    assert rows[3][11] == "needs a lineage: there is noneMitigation if it fails: shorter steps"
    assert "19,873 queries of 4,120 users" in page.text and "1 error, 1 fail, 1 pass, 1 skipped, 1 unclear." in page.text
    assert page.definitions["Candidate"] == ["c0ffee"] and page.definitions["Week"] == ["12"]
    assert "Champion" not in page.definitions and "Decided in 2.1 s." in page.text
    assert "harm rate: stronger KL <b>" in page.text and "simulated" not in page.text


def test_page_is_the_section_of_the_report(result: dict[str, Any]) -> None:
    def section(text: str) -> str:
        return re.search(r'<section id="gate">.*?</section>', text, re.DOTALL)[0]  # type: ignore[index]

    assert section(render_gate(result, {})) == section(render_report({"gate": result}, {}))


def test_page_without_checks(read: Reader, result: dict[str, Any]) -> None:
    why = "12 users were evaluated, the gate needs 40: evaluate more."
    held = {"verdict": "hold", "reason": why, "users": 12, "queries": 30, "checks": []}
    page = read(render_gate(held, {"simulated": True}))
    assert not page.tables and why in page.text and "The platform is simulated." in page.text
    assert [value for tag, name, value in page.attributes if tag == "section" and name == "id"] == ["verdict"]


def test_page_escapes_and_loads_nothing(read: Reader, result: dict[str, Any]) -> None:
    text = render_gate(result, {"candidate": HOSTILE, "command": HOSTILE})
    page = read(text)
    assert not {"img", "script"} & page.tags and "\x1b" not in text
    assert page.tables["gate"][5][11] == 'query "<img src=x onerror=alert(1)>" <U+001B>[2J'
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in page.attributes
    assert {value for _, name, value in page.attributes if name in ("src", "href")} == {"data:,"}


def printed(result: dict[str, Any], *, colours: bool = False) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=colours, color_system="standard" if colours else None)
    print_gate(result, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_terminal_fits_80_columns_and_keeps_every_figure(result: dict[str, Any]) -> None:
    text = printed(result)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in text
    fused = next(line for line in lines if line.startswith("fused reward")).split()
    assert fused[2:5] == ["0.0791", "0.0580", "+0.0211"] and fused[-2:] == ["0", "pass"]
    slow = next(line for line in lines if line.startswith("p99")).split()
    assert slow[3:6] == ["112.3456", "98.1234", "-14.2222"] and slow[-2:] == ["15", "unclear"] and "-18.1234" in slow
    assert next(line for line in lines if line.startswith("kl to lineage")).split()[3:] == ["–"] * 5 + ["skipped"]
    folded = " ".join(text.split())
    assert "-10.1234" in folded and "vs no rewriter" in folded and "mitigation: stronger KL <b>" in folded
    assert "kl to lineage needs a lineage: there is none" in folded and "shorter steps" not in folded
    assert 'distinct 2 query "<img src=x onerror=alert(1)>" <U+001B>[2J' in folded and "\x1b" not in text
    assert "REJECT on 19,873 queries of 4,120 users: harm_rate fails:" in folded
    assert "effective users 1,114 there; needed to pass at all: all 1,373 gate" in folded


def test_terminal_says_how_many_users_each_check_needs(result: dict[str, Any]) -> None:
    for check, needed in zip(result["checks"], (40, 373, 1373, 40, None), strict=True):
        check["users_needed"] = needed
    folded = " ".join(printed(result).split())
    assert "needed to pass at all: p99 latency ms 1,373, harm rate 373, the others 40 gate" in folded
    for check in result["checks"]:
        del check["users_needed"]
    assert "needed" not in printed(result), "of an earlier version"


def test_terminal_colours_verdicts(result: dict[str, Any]) -> None:
    text = printed(result, colours=True)
    for style, word in (("32", "pass"), ("31", "fail"), ("33", "unclear"), ("2", "skipped"), ("1;31", "REJECT")):
        assert f"\x1b[{style}m{word}" in text


def test_terminal_without_checks() -> None:
    held = {"verdict": "hold", "reason": "[red]12 users[/red]", "users": 12, "queries": 30, "checks": []}
    assert printed(held).split() == ["gate", "HOLD", "on", "30", "queries", "of", "12", "users:", "[red]12", "users[/red]"]
