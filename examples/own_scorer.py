"""A relevance model of your own: from query or rewrite, document and picture to a probability.

Put this file on PYTHONPATH and name it in corewrite.yaml. `documents.visual` holds a vector of numbers for each document, here
how much of each word of `WORDS` is to be seen; a document without a picture counts as showing nothing.

    ranker:
      signals:
        relevance:
          kind: python
          factory: own_scorer:words_and_picture
          version: "1"                # another version is another model: change it with the code or the weights
          options: {seen_weight: 0.5}
          inputs: {text: text, document: document, picture: {from: document.visual, missing: 0}}

A package makes it a kind of its own by an entry point in the group `corewrite.signals`; see docs/how-to/plug-in.md.
"""

import numpy as np

from corewrite.domain import words

WORDS = ("red", "lion", "cup", "final", "piano")


def words_and_picture(seen_weight: float):
    """A function from the inputs of n pairs (texts as lists, vectors as [n, k]) to n probabilities."""

    def score(inputs):
        logits = np.empty(len(inputs["text"]))
        for i, (text, document) in enumerate(zip(inputs["text"], inputs["document"], strict=True)):
            asked, said = set(words(text)), set(words(document))
            seen = sum(inputs["picture"][i, WORDS.index(w)] for w in asked & set(WORDS) - said)
            logits[i] = 2.0 * len(asked & said) + seen_weight * seen - 1.2 * len(asked) - 0.5
        return 1 / (1 + np.exp(-logits))

    return score
