"""docs/settings.md and docs/checks.md are what the code says."""

import importlib.util
from pathlib import Path

import pytest

from corewrite.domain.config_file import SECTIONS, read_config

ROOT = Path(__file__).parents[1]


def load_tool(name):
    """A module of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference, checks = load_tool("settings_reference"), load_tool("checks_reference")


@pytest.mark.parametrize(("page", "tool"), [("settings.md", reference), ("checks.md", checks)], ids=["settings", "checks"])
def test_the_page_is_current(page, tool):
    assert (ROOT / "docs" / page).read_text("utf-8") == tool.page(), f"run python {tool.__name__}.py in tools"


def test_every_mitigation_of_a_check_is_explained():
    explained = (ROOT / "docs" / "checks.md").read_text("utf-8").split("## Mitigations")[1]
    for check in checks.own_checks():
        assert check.mitigation == "none" or f"| `{check.mitigation}` | `" in explained


def test_every_section_is_read_by_some_command_and_every_field_of_a_command_is_a_section():
    read = {name for kind in reference.READERS.values() for name in kind.model_fields}
    assert read == set(SECTIONS)


@pytest.mark.parametrize("page", ["settings.md", "cycle.md", "deploy.md", "training.md"])
def test_the_examples_of_the_docs_are_read(page, tmp_path, recwarn):
    blocks = (ROOT / "docs" / page).read_text("utf-8").split("```yaml\n")[1:]
    blocks = [b for b in blocks if any(line.split(":")[0] in SECTIONS for line in b.splitlines())]  # not of other tools
    assert blocks
    for block in blocks:
        file = tmp_path / "corewrite.yaml"
        file.write_text(block.split("```")[0])
        rest = {"run": "r", "documents": "d", "logs": "l", "labels": "g", "frozen": "f"}
        for kind in reference.READERS.values():
            read_config(file, kind, **{k: v for k, v in rest.items() if k in kind.model_fields and f"{k}:" not in block})
    assert not recwarn, "nothing as in earlier versions"
