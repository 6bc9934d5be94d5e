"""The blocks of code in Markdown pages."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((ROOT / "docs").rglob("*.md"))
_FENCE = re.compile(r"^( *)```(\S*)$")
_MARK = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Path from the root.
        line: Of its fence, from 1.
        language: Word after the fence.
        text: Between the fences, without the indentation of a list.
        not_run: Reason of a comment `<!-- not run: reason -->` above it; None where it has none.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str | None

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page.

    Raises:
        ValueError: a fence that does not end.
    """
    lines, found, at = page.read_text("utf-8").splitlines(), [], 0
    while at < len(lines):
        if (begin := _FENCE.match(lines[at])) is None:
            at += 1
            continue
        end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == "```"), None)
        if end is None:
            raise ValueError(f"{page}:{at + 1}: the block does not end")
        above = next((line for line in reversed(lines[:at]) if line.strip()), "")
        mark = _MARK.fullmatch(above.strip())
        text = textwrap.dedent("\n".join(lines[at + 1 : end]) + "\n")
        name = str(page.relative_to(ROOT))
        found.append(Block(name, at + 1, begin[2], text, mark and mark[1]))
        at = end + 1
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
