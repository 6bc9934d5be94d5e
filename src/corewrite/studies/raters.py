"""The simulated platform's raters as a week's cycle asks them: they read descriptions out of files, and add to the labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from corewrite.cycle import write_labels
from corewrite.domain import Documents, keyed_uniform, text_key
from corewrite.relevance import Labels
from corewrite.relevance.pair_sample import PairsToGrade
from corewrite.simulation.raters import DRAWS, rate
from corewrite.simulation.world import World

FloatArray = npt.NDArray[np.float64]
_PURPOSE = 45


@dataclass(frozen=True, eq=False)
class SimulatedRaters:
    """Raters who know of each search what its searcher wrote down, see `simulation.raters`.

    Attributes:
        world: What the videos show.
        descriptions: By search id.
    """

    world: World
    descriptions: Mapping[str, str]

    def grade(self, pairs: PairsToGrade) -> FloatArray:
        """Grades of the pairs; NaN where nobody wrote down what was wanted."""
        known = np.array([i for i, search in enumerate(pairs.search_ids) if search in self.descriptions], np.int64)
        found = np.full(len(pairs), np.nan)
        if len(known):
            searches = [pairs.search_ids[i] for i in known]
            keys, rows = np.array([text_key(s) for s in searches], np.uint64), pairs.rows[known]
            draws = keyed_uniform(self.world.config.seed, _PURPOSE, keys[:, None], rows[:, None], np.arange(DRAWS)[None, :])
            texts = [self.descriptions[s] for s in searches]
            found[known] = rate(self.world, texts, rows[:, None], draws[:, None, :])[:, 0]
        return found


@dataclass(frozen=True, eq=False)
class KeepingRaters:
    """Raters whose grades are kept as labels.

    Attributes:
        raters: Who grade.
        documents: What is graded.
        labels: File for the grades.
    """

    raters: SimulatedRaters
    documents: Documents
    labels: Path

    def grade(self, pairs: PairsToGrade) -> FloatArray:
        """Grades of the pairs; NaN where there is none."""
        given = self.raters.grade(pairs)
        write_labels(labels_of(pairs, given), self.documents, self.labels)
        return given


def read_descriptions(files: Sequence[Path]) -> dict[str, str]:
    """Descriptions by search id, of files that `simulation.raters.write_descriptions` wrote."""
    found: dict[str, str] = {}
    for file in files:
        table = pq.read_table(file)
        found |= dict(zip(table["search_id"].to_pylist(), table["description"].to_pylist(), strict=True))
    return found


def labels_of(pairs: PairsToGrade, given: FloatArray) -> Labels:
    """The grades that were given, as labels."""
    there = ~np.isnan(given)
    queries = [query for query, graded in zip(pairs.queries, there.tolist(), strict=True) if graded]
    return Labels(queries, pairs.rows[there], given[there])
