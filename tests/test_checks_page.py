"""docs/checks.md is what the code says."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("checks_reference", ROOT / "tools" / "checks_reference.py")
assert spec is not None and spec.loader is not None
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


def test_the_page_is_current_and_explains_every_mitigation():
    text = (ROOT / "docs" / "checks.md").read_text("utf-8")
    assert text == reference.page(), "run python tools/checks_reference.py"
    for check in reference._own_checks():
        assert check.mitigation == "none" or f"| `{check.mitigation}` | `" in text.split("## Mitigations")[1]
