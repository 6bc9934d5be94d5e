"""Walls that import-linter's layers do not express."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "corewrite"
HIDDEN = "corewrite.simulation.intents"
MAY_SEE = {"studies/truth.py"}
"""Measuring code: nothing of it feeds back into training or the gate."""


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return found


def outside_simulation():
    return [p for p in sorted(SOURCE.rglob("*.py")) if p.relative_to(SOURCE).parts[0] != "simulation"]


@pytest.mark.parametrize("path", outside_simulation(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_the_hidden_intent_is_imported_by_measuring_code_only(path):
    if str(path.relative_to(SOURCE)) not in MAY_SEE:
        assert HIDDEN not in imported(path), f"{path} must not see hidden intents"


def test_the_wall_would_notice(tmp_path):
    for text in (f"import {HIDDEN}", "from corewrite.simulation import intents", f"from {HIDDEN} import grades"):
        file = tmp_path / "x.py"
        file.write_text(text)
        assert HIDDEN in imported(file)


@pytest.mark.parametrize("name", ["intents", "typed", "felt", "examined", "told", "attempt"])
def test_truth_of_a_week_is_read_by_simulation_and_measuring_only(name):
    """A Week carries truth beside what the log shows: no other module may reach for it."""
    for path in outside_simulation():
        if str(path.relative_to(SOURCE)) in MAY_SEE:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.value, ast.Name):
                assert not node.value.id.startswith(("week", "held_out", "happened")), f"{path}:{node.lineno} reads {name}"


LAZY = {"_HOMES", "__version__", "__all__", "__getattr__", "__dir__"}
"""All that the one `__init__` with code may define: the public names of the package, imported when they are used."""


def defines(node: ast.stmt) -> str:
    """The name that a statement defines; of a block, nothing."""
    return getattr(node.targets[0], "id", "") if isinstance(node, ast.Assign) else getattr(node, "name", "")


def is_for_type_checkers(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.If)
        and getattr(node.test, "id", "") == "TYPE_CHECKING"
        and all(isinstance(inner, ast.ImportFrom) for inner in node.body)
        and not node.orelse
    )


def test_packages_hold_no_code_in_init():
    for path in sorted(SOURCE.rglob("__init__.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            allowed = isinstance(node, ast.Import | ast.ImportFrom | ast.Expr) or defines(node) == "__all__"
            if path.parent == SOURCE:
                allowed = allowed or is_for_type_checkers(node) or defines(node) in LAZY
            assert allowed, f"{path}:{node.lineno} holds code"
