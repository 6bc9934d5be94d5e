"""Markdown of the generated pages: tables, cells, and what docstrings say of attributes."""

import inspect
import re
from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """Text in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table.

    Args:
        head: Titles of the columns.
        rows: Cells, as many a row as there are titles.
    """
    lines = [head, ["---"] * len(head), *([cell(c) for c in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def attributes(one: type) -> dict[str, str]:
    """What the section `Attributes:` of a class's docstring (and of its bases') says, by attribute."""
    found: dict[str, str] = {}
    for base in reversed(one.__mro__):
        _, _, section = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Attributes:\n")
        for names, text in re.findall(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            found |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return found
