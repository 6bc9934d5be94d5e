"""Which word was meant by a misspelt one: the inverse of `vocabulary.misspell`, by enumeration."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cache

import numpy as np
import numpy.typing as npt

from corewrite.simulation.vocabulary import LETTER_DRAWS, MISSPELT_FROM, slip

FloatArray = npt.NDArray[np.float64]
_OPERATIONS = 4
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def misspellings(word: str) -> dict[str, float]:
    """Every misspelling of `word` and its probability, summing to 1; a word too short to be misspelt only gives itself."""
    if len(word) < MISSPELT_FROM:
        return {word: 1.0}
    found: dict[str, float] = defaultdict(float)
    for place, letters in enumerate(_place_and_letter(len(word)), start=1):
        for operation in range(_OPERATIONS):
            for letter, weight in zip(_LETTERS, letters / _OPERATIONS, strict=True):
                if weight:
                    found[slip(word, operation, place, letter)] += float(weight)
    return dict(found)


def meant_words(words: Iterable[str]) -> dict[str, tuple[tuple[str, float], ...]]:
    """By misspelling: the words of `words` that it may stand for, each with the probability that it is misspelt so."""
    meant: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for word in sorted(set(words)):
        if len(word) >= MISSPELT_FROM:
            for misspelt, probability in misspellings(word).items():
                meant[misspelt].append((word, probability))
    return {misspelt: tuple(found) for misspelt, found in meant.items()}


@cache
def _place_and_letter(length: int) -> FloatArray:
    """Probability of each place (rows, the second character first) and letter (columns) of a slip, [length - 2, 26].

    Both come from one number in [0, 1), so that they depend on each other: it is cut where either changes.
    """
    cuts = np.unique(np.r_[np.arange(LETTER_DRAWS + 1) / LETTER_DRAWS, np.arange(length - 1) / (length - 2)])
    middle = (cuts[1:] + cuts[:-1]) / 2
    table = np.zeros((length - 2, len(_LETTERS)))
    np.add.at(table, ((middle * (length - 2)).astype(int), (middle * LETTER_DRAWS).astype(int) % 26), np.diff(cuts))
    return table
