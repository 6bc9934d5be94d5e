"""Paid raters: they read what the searcher wrote down of what was wanted, watch a few results and give noisy grades.

They never see the intent itself: a description is a text, made once from the intent as a searcher would word it when asked, and
all that raters know of a search.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.simulation.intents import Intents, grades
from corewrite.simulation.vocabulary import ASPECTS, CATEGORIES
from corewrite.simulation.week import Week
from corewrite.simulation.world import NONE, World
from corewrite.storage.durable import whole_file

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
DRAWS = 4
"""Uniform numbers that a grade consumes."""
ERRORS = 0.25
"""Share of grades that are off by one; a fifth as many are made up."""
_DESCRIPTION = re.compile(
    r"videos (?:of (?P<name>[^(]+) \(also called (?P<alias>[^)]+)\)|about (?P<category>\w+))(?:, showing (?P<aspect>\w+))?"
)


def describe(world: World, intents: Intents) -> list[str]:
    """What each searcher would answer to "what did you want to see?"."""
    texts = []
    for e, a, c in zip(intents.entity.tolist(), intents.aspect.tolist(), intents.category.tolist(), strict=True):
        about = f"about {CATEGORIES[c][0]}" if e == NONE else f"of {world.names[e]} (also called {world.aliases[e]})"
        texts.append(f"videos {about}" + (f", showing {ASPECTS[a][0]}" if a != NONE else ""))
    return texts


def searchers_descriptions(world: World, week: Week) -> list[str]:
    """The descriptions of a week's searches."""
    return describe(world, week.intents)


def understood(world: World, descriptions: Sequence[str]) -> Intents:
    """What a rater takes descriptions to mean.

    Raises:
        ValueError: one is of another form than `describe` writes.
    """
    entities, aspects = {name: e for e, name in enumerate(world.names)}, {words[0]: a for a, words in enumerate(ASPECTS)}
    categories = {words[0]: c for c, words in enumerate(CATEGORIES)}
    found = []
    for text in descriptions:
        if (parts := _DESCRIPTION.fullmatch(text)) is None:
            raise ValueError(f"no rater understands {text!r}")
        e = NONE if parts["name"] is None else entities[parts["name"]]
        a = NONE if parts["aspect"] is None else aspects[parts["aspect"]]
        found.append((e, a, categories[parts["category"]] if e == NONE else int(world.category[e])))
    return Intents(*np.array(found, np.int64).reshape(-1, 3).T)


def rate(world: World, descriptions: Sequence[str], rows: IntArray, draws: FloatArray, *, errors: float = ERRORS) -> FloatArray:
    """Grades 0-3 of documents, by raters who err, float64 [searches, documents]; 0 where `rows` is -1.

    Args:
        world: What the videos show: a rater watches them.
        descriptions: Of what each search wanted.
        rows: Catalogue rows, int64 [searches, documents], -1 pads.
        draws: Uniform in [0, 1), float64 [searches, documents, DRAWS].
        errors: Share of grades that are off by one; a fifth as many are made up.
    """
    off, direction, made_up, invented = np.moveaxis(draws, -1, 0)
    given = grades(world, understood(world, descriptions), rows).astype(np.float64)
    given = np.clip(given + (off < errors) * np.where(direction < 0.5, -1.0, 1.0), 0, 3)
    given = np.where(made_up < errors / 5, np.floor(4 * invented), given)
    return np.where(rows < 0, 0.0, given)


def write_descriptions(world: World, week: Week, path: Path) -> None:
    """Write the descriptions of a week's searches: search_id, description."""
    with whole_file(path) as temporary:
        pq.write_table(
            pa.table({"search_id": list(week.query_ids), "description": searchers_descriptions(world, week)}), temporary
        )
