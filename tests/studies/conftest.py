"""One miniature run of the whole loop, through the command line, as a user would start it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app


@dataclass(frozen=True)
class Run:
    folder: Path
    exit_code: int
    output: str
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("demo") / "run"
    result = CliRunner().invoke(app, ["demo", "--miniature", "--out", str(folder)], catch_exceptions=False)
    summary = json.loads((folder / "summary.json").read_text())
    return Run(folder, result.exit_code, result.stdout, summary)
