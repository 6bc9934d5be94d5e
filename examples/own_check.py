"""A check of your own at the gate: no more rewrites that say a word twice than the champion's.

The gate asks it as soon as a package that is installed names it in its pyproject.toml, by the name of the check:

    [project.entry-points."corewrite.checks"]
    repeated_words = "own_check:RepeatedWords"

Its margin then has a place in corewrite.yaml, beside those of the checks that come with corewrite:

    gate:
      margins: {repeated_words: 0.01}
"""

import numpy as np

from corewrite.gate import Evaluation
from corewrite.gate.check import TextCheck
from corewrite.gate.evaluation import ServedTexts


class RepeatedWords(TextCheck):
    """Share of served texts that hold a word more than once, candidate against champion, on the same queries."""

    name = "repeated_words"
    question = "Do no more rewrites repeat a word?"
    sign = -1  # less is better
    default_margin = 0.02  # may be up to two points more often: a limit of the search team
    mitigation = "wider_pair_margin"  # what the next training does where this fails

    def of(self, served: ServedTexts, evaluation: Evaluation):
        """1 where a word stands twice, [queries]."""
        return np.array([float(len(set(text)) < len(text)) for text in served.words])
