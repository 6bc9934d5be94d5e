"""What long steps say where there is no terminal."""

import io
import time

import pytest
from rich.console import Console

from corewrite.report.progress import ProgressSteps


def test_a_long_step_says_that_it_is_at_work(monkeypatch):
    monkeypatch.setattr("corewrite.report.progress._SILENT", 0.02)
    out = io.StringIO()
    with ProgressSteps(Console(file=out, width=100)).step("train") as progress:
        progress(1, 4)
        deadline = time.monotonic() + 10
        while out.getvalue().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    *said, end = out.getvalue().splitlines()
    assert len(said) >= 2 and all("… train" in line and line.endswith(" 25%") for line in said)
    assert end.startswith("✓ train")
    time.sleep(0.1)
    assert out.getvalue().splitlines()[-1] == end


def test_a_short_step_says_one_line():
    out = io.StringIO()
    with ProgressSteps(Console(file=out, width=100)).step("read") as progress:
        progress(0, 0)
    assert out.getvalue().count("\n") == 1


def test_a_step_that_fails_stops_speaking(monkeypatch):
    monkeypatch.setattr("corewrite.report.progress._SILENT", 0.02)
    out = io.StringIO()
    with pytest.raises(KeyError), ProgressSteps(Console(file=out, width=100)).step("train"):
        raise KeyError("x")
    said = out.getvalue()
    time.sleep(0.1)
    assert out.getvalue() == said and "✓" not in said
