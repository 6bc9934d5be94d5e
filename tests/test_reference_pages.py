"""The generated pages of docs/reference are what the code says."""

import sys
from pathlib import Path

import pytest

from corewrite.domain.config_file import SECTIONS, read_config

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import checks_reference as checks
import reference
import settings_reference

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("tool", reference.MODULES, ids=lambda m: m.__name__)
def test_the_page_is_current(tool):
    assert (ROOT / "docs" / tool.PAGE).read_text("utf-8") == tool.page(), "run python tools/reference.py"


def test_every_mitigation_of_a_check_is_explained():
    explained = (ROOT / "docs" / "reference" / "gate-checks.md").read_text("utf-8").split("## Mitigations")[1]
    for check in checks.own_checks():
        assert check.mitigation == "none" or f"| `{check.mitigation}` | `" in explained


def test_every_section_is_read_by_some_command_and_every_field_of_a_command_is_a_section():
    read = {name for kind in settings_reference.READERS.values() for name in kind.model_fields}
    assert read == set(SECTIONS)


@pytest.mark.parametrize(
    "page", ["reference/corewrite-yaml.md", "concepts/weekly-cycle.md", "how-to/serve.md", "how-to/train.md"]
)
def test_the_examples_of_the_docs_are_read(page, tmp_path, recwarn):
    blocks = [b.split("```")[0] for b in (ROOT / "docs" / page).read_text("utf-8").split("```yaml\n")[1:]]
    blocks = [b for b in blocks if any(line.split(":")[0] in SECTIONS for line in b.splitlines())]  # not of other tools
    assert blocks
    for block in blocks:
        file = tmp_path / "corewrite.yaml"
        file.write_text(block)
        rest = {"run": "r", "documents": "d", "logs": "l", "labels": "g", "frozen": "f"}
        for kind in settings_reference.READERS.values():
            read_config(file, kind, **{k: v for k, v in rest.items() if k in kind.model_fields and f"{k}:" not in block})
    assert not recwarn, "nothing as in earlier versions"
