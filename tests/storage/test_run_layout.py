"""A run folder's parts have the names that they had in every version, and one module spells them."""

import ast
from pathlib import Path

import corewrite
from corewrite.storage.run_layout import CycleLayout, RunLayout

NAMES = {
    "registry", "ramp.json", "ramp.lock", "serving.killed", "cycle.lock", "cycle.pid", "cycles", "windows", "rejects",
    "training", "documents.parquet", "documents.json", "pairs-to-grade.parquet", "start",
    "conversations.json", "conversation-calibration.json",
}  # fmt: skip
ELSEWHERE = {"studies"}
"""Have folders of their own, with documents and logs in them."""


def parts(layout: RunLayout | CycleLayout) -> set[str]:
    found = (getattr(layout, name) for name, value in vars(type(layout)).items() if isinstance(value, property))
    return {str(path.relative_to(layout.root)) for path in found}


def test_what_earlier_versions_wrote_is_found():
    run = RunLayout(Path("run"))
    assert parts(run) == NAMES
    assert (run.window("w1"), run.reject_file("w1")) == (Path("run/windows/w1"), Path("run/rejects/w1.ndjson"))
    week = run.cycle("w1")
    assert (parts(week), week.root, week.step("gate")) == (
        {"start", "training", "pairs-to-grade.parquet"},
        Path("run/cycles/w1"),
        week.root / "gate.json",
    )


def test_nothing_else_spells_the_parts_of_a_run_folder():
    source = Path(corewrite.__file__).parent
    found = [
        f"{file.relative_to(source)}:{node.lineno}"
        for file in sorted(source.rglob("*.py"))
        if file.name != "run_layout.py" and file.relative_to(source).parts[0] not in ELSEWHERE
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
        if isinstance(node.right, ast.Constant) and node.right.value in NAMES
    ]
    assert found == []
