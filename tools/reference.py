"""Writes the generated pages of docs/reference, each from the code that it describes.

python tools/reference.py            # writes the pages
python tools/reference.py --check    # exit code 1 where a page is not what it would write
"""

import argparse
import sys
from pathlib import Path

import checks_reference
import cli_reference
import files_reference
import http_reference
import metrics_reference
import settings_reference
import spec_reference

DOCS = Path(__file__).parents[1] / "docs"
MODULES = (
    checks_reference,
    cli_reference,
    files_reference,
    http_reference,
    metrics_reference,
    settings_reference,
    spec_reference,
)


def stale_pages() -> list[str]:
    """Pages that are missing or not what the code says."""
    return [m.PAGE for m in MODULES if not (DOCS / m.PAGE).is_file() or (DOCS / m.PAGE).read_text("utf-8") != m.page()]


def main() -> None:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args().check:
        if stale := stale_pages():
            sys.exit(f"{', '.join(stale)}: not what the code says: run python tools/reference.py")
        return
    for module in MODULES:
        (DOCS / module.PAGE).write_text(module.page(), "utf-8")


if __name__ == "__main__":
    main()
