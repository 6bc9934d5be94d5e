"""Pairs of a search and a document for a team's raters, as a file, and their grades, out of the labels."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.cycle.catalogue_files import labels_of_table, read_labels
from corewrite.cycle.weeks import CycleError
from corewrite.deployment.inputs import LABELS
from corewrite.domain import Documents, query_columns
from corewrite.domain.documents import text_column
from corewrite.relevance import Labels
from corewrite.relevance.pair_sample import PairsToGrade
from corewrite.search.documents import read_columns
from corewrite.storage.durable import whole_file

FloatArray = npt.NDArray[np.float64]
_OF_A_LABEL = ("search_id", "query", "context_queries", "context_titles", "locale", "document_id", "grade")
_ENOUGH = 0.5
"""Share of the pairs that must be graded: the others are taken to be like them."""


class GradesAwaitedError(CycleError):
    """A week that goes on when raters have graded its pairs."""


@dataclass(frozen=True, eq=False)
class LabelsFileRaters:
    """Raters of a team: they are asked by a file, and answer in the labels.

    Attributes:
        pairs: File that they are asked by.
        labels: File that holds all their grades, see `read_labels`.
        documents: Those that there are.
    """

    pairs: Path
    labels: Path
    documents: Documents

    def grade(self, pairs: PairsToGrade) -> FloatArray:
        """The mean grade that the labels hold of each pair, by its search and document; NaN where they hold none.

        Raises:
            GradesAwaitedError: fewer than half of the pairs are graded.
        """
        write_pairs(pairs, self.documents, self.pairs)
        given = defaultdict[tuple[str | None, str], list[float]](list)
        table = read_columns(self.labels, LABELS)
        for pair, grade in zip(_searched(table), table["grade"].to_pylist(), strict=True):
            if grade is not None and grade == grade:
                given[pair].append(float(grade))
        asked = list(zip(pairs.search_ids, self.documents.load_ids(pairs.rows), strict=True))
        found = np.array([np.mean(given[pair]) if pair in given else np.nan for pair in asked])
        graded = int((~np.isnan(found)).sum())
        if graded < _ENOUGH * len(pairs):
            raise GradesAwaitedError(
                f"raters have graded {graded} of the {len(pairs)} pairs in {self.pairs}, and the gate waits for half of them: "
                "fill a column `grade` (0 to 3), add the file with `corewrite cycle add-grades`, and run again; or set "
                "evaluation.pairs_to_grade to 0 to go on by the judge alone"
            )
        return found


def write_pairs(pairs: PairsToGrade, documents: Documents, path: Path) -> None:
    """Write what raters need to see, in an order that tells nothing of systems or ranks.

    Columns: search_id, query, context_queries, context_titles, locale, document_id, title, probability.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "search_id": pa.array(list(pairs.search_ids), pa.string()),
        **query_columns(pairs.queries),
        "document_id": documents.load_ids(pairs.rows),
        "title": text_column(documents, "title", pairs.rows),
        "probability": pairs.probability,
    }
    with whole_file(path) as temporary:
        pq.write_table(pa.table(columns).sort_by([("search_id", "ascending"), ("document_id", "ascending")]), temporary)


def add_grades(graded: Path, labels: Path) -> int:
    """Add graded pairs to the labels; returns how many. Pairs without a grade, or there already, are left out.

    Args:
        graded: What `write_pairs` wrote, or a part of it, with a column `grade` from 0 to 3.
        labels: Made where it is not there.

    Raises:
        DocumentsError: a file cannot be read, or lacks a column.
        ValueError: a grade is none.
    """
    table = read_columns(graded, ("search_id", *LABELS))
    table = table.select([name for name in table.column_names if name in _OF_A_LABEL])
    grades = np.array([np.nan if g is None else float(g) for g in table["grade"].to_pylist()])
    if ((grades < 0) | (grades > 3)).any():
        raise ValueError(f"{graded}: grade {grades[(grades < 0) | (grades > 3)][0]:g} is not between 0 and 3")
    before = [read_columns(labels, LABELS)] if labels.is_file() else []
    known = {pair for t in before for pair in _searched(t)}
    new = [not np.isnan(grade) and pair not in known for grade, pair in zip(grades, _searched(table), strict=True)]
    labels.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(labels) as temporary:
        pq.write_table(pa.concat_tables([*before, table.filter(new)], promote_options="permissive"), temporary)
    return sum(new)


def _searched(table: pa.Table) -> list[tuple[str | None, str]]:
    """Search and document of each row; None where a label is of no search."""
    searches = table["search_id"].to_pylist() if "search_id" in table.column_names else [None] * len(table)
    return list(zip(searches, map(str, table["document_id"].to_pylist()), strict=True))


def read_labels_without_pairs(labels: Path, pairs: Path, documents: Documents) -> Labels:
    """The labels without those of pairs that raters were asked about: a judge that they correct must not learn from them.

    Args:
        labels: All that raters gave.
        pairs: What `write_pairs` wrote; no such file: nothing was asked.
        documents: Those that there are.
    """
    if not pairs.is_file():
        return read_labels(labels, documents)
    asked, table = set(_searched(read_columns(pairs, ("search_id", "document_id")))), read_columns(labels, LABELS)
    return labels_of_table(table.filter([pair not in asked for pair in _searched(table)]), labels, documents)
