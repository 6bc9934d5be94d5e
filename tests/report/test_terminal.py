import io
import math
from typing import Any

import pytest
from rich.console import Console

from corewrite.report import print_summary


def printed(summary: dict[str, Any], width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_summary(summary, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 120])
def test_full_run(summary: dict[str, Any], width: int) -> None:
    text = printed(summary, width)
    assert len(text.splitlines()) <= 32 and max(map(len, text.splitlines())) <= width
    champion = next(line for line in text.splitlines() if line.startswith("champion"))
    assert champion.split() == ["champion", "0.653", "0.670", "0.590", "0.570", "+16.5", "%", "0.0794", "0.731"]
    oracle = next(line for line in text.splitlines() if line.startswith("oracle"))
    assert oracle.split() == ["oracle", "rewrite", "0.721", "0.721", "0.710", "–", "+28.7", "%", "–", "–"]
    folded = " ".join(text.split())
    assert "simulated" in folded and "HOLD distinct_2 could not be computed" in folded
    assert "launch 1: finerank counts change-query rate -6.1 % (-8.2 % to -4.0 %), give-up +0.4 %" in folded
    assert "does not count change-query rate -1.0 %" in folded
    assert "over best baseline +6.9 % (+5.1 % to +8.7 %) nDCG@10 of the champion over RM3" in folded
    assert "warm start 53.5 % (51.0 % to 56.0 %), champion 61.7 % (59.0 % to 64.2 %)" in folded
    assert "8 min 20 s" in folded and "1,523 MiB" in folded  # 4.2 + 61 + 95.5 + 210.4 + 128.9 = 500 s
    assert "4.6 % of 500 splits significant at 5 % (2.9 % to 6.8 %)" in folded


def test_minimal_run() -> None:
    text = printed({"seed": 0, "seconds": {"world": 1.5}, "peak_rss_mib": None, "gate": None, "experiment": []})
    assert [line.split() for line in text.splitlines()] == [
        ["corewrite,", "on", "a", "simulated", "platform"], ["time", "1.5", "s"], ["peak", "memory", "–"],
    ]  # fmt: skip
    assert "time" in printed({})


def test_missing_numbers_are_dashes(summary: dict[str, Any]) -> None:
    summary["ndcg10"]["all"] = dict.fromkeys(summary["ndcg10"]["all"], math.nan)
    summary["experiment"][0]["cqr"] = dict.fromkeys(summary["experiment"][0]["cqr"])
    text = printed(summary)
    assert "nan" not in text and "None" not in text and "change-query rate – (–)" in " ".join(text.split())


def test_hostile_text_neither_styles_nor_drives_the_terminal(summary: dict[str, Any]) -> None:
    summary["gate"]["reason"] = "[red]x[/red] \x1b[2J \u202edrow"
    summary["experiment"][0]["launch"] = "[/bold] launch"
    text = printed(summary)
    assert "[red]x[/red] <U+001B>[2J <U+202E>drow" in text and "[/bold] launch" in text
