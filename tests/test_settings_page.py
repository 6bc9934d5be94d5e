"""docs/settings.md is what the code says."""

import importlib.util
from pathlib import Path

import pytest

from corewrite.domain.config_file import SECTIONS, read_config

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("settings_reference", ROOT / "tools" / "settings_reference.py")
assert spec is not None and spec.loader is not None
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


def test_the_page_is_current():
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == reference.page(), "run python tools/settings_reference.py"


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
