"""Queries with their rewrites as Parquet: what a warm start may learn from in the place of a log's reformulations."""

from pathlib import Path

from corewrite.deployment.inputs import REWRITES
from corewrite.domain import query_from_row
from corewrite.rewriter import Example, clean
from corewrite.search.documents import read_columns


def read_pairs(path: Path) -> list[Example]:
    """Read pairs: `query`, `rewrite`, and where there are any `context_queries`, `context_titles`, `locale`.

    Raises:
        ValueError: the file cannot be read, has no rows or lacks a column, or a row lacks its query or rewrite, or has one that
            would not be served as it is.
    """
    rows = read_columns(path, REWRITES).to_pylist()
    if not rows:
        raise ValueError(f"{path} has no rows: bring pairs, or set warm_start.start: none")
    found = []
    for number, row in enumerate(rows, 1):
        for name in REWRITES:
            if not isinstance(row[name], str) or not row[name].strip():
                raise ValueError(f"{path}: row {number}: {name} must be a text, not {row[name]!r:.60}: leave the row out")
        cleaned = clean(row["rewrite"])
        if cleaned.malformed:
            raise ValueError(
                f"{path}: row {number}: rewrite {row['rewrite']!r:.60} would be served as {cleaned.text!r:.60}: one line, no "
                "control characters and 120 characters at most"
            )
        try:
            query = query_from_row(row)
        except TypeError as error:
            raise ValueError(f"{path}: row {number}: {error}") from None
        found.append(Example(query, cleaned.text))
    return found
