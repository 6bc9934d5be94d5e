"""From the (texts, rows) of a `RelevanceScorer` to batches of pairs for a model, and back."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from corewrite.domain import Documents
from corewrite.domain.documents import text_column
from corewrite.relevance.backends.calibration import ScoreCalibration, inside
from corewrite.relevance.backends.errors import ScoreError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Pair = tuple[str, int]
"""Text and catalogue row."""


def document_texts(documents: Documents, rows: IntArray) -> list[str]:
    """What a text model reads of the documents at `rows`, int64 [n]: title and text, as the bundled model does."""
    titles = text_column(documents, "title", rows)
    texts = text_column(documents, "text", rows) if "text" in documents.column_names else [""] * len(titles)
    return [f"{title} {text}".strip() for title, text in zip(titles, texts, strict=True)]


def score_pairs(
    texts: Sequence[str],
    rows: IntArray,
    documents: Documents,
    ask: Callable[[list[Pair]], npt.NDArray[np.floating]],
    batch: int,
    calibration: ScoreCalibration | None,
) -> FloatArray:
    """Ask a model about every distinct pair once, in batches, and check what it says.

    Args:
        texts: Queries or rewrites.
        rows: Catalogue rows under each, int64 [texts, documents]; -1 pads.
        documents: What the rows mean; ids are for errors.
        ask: The model: from pairs to as many numbers, [pairs] or [pairs, 1].
        batch: Pairs in one call of `ask` at most.
        calibration: Makes probabilities of the numbers; None where they are probabilities.

    Returns:
        Float64 [texts, documents], in (0, 1); 0.0 where `rows` is -1.

    Raises:
        ScoreError: a number is not finite, or no probability where it should be one, or there are too few or too many.
        ValueError: `rows` does not fit `texts` or the catalogue.
    """
    rows = np.asarray(rows, np.int64)
    if rows.ndim != 2 or len(rows) != len(texts):
        raise ValueError(f"rows have shape {rows.shape}, there are {len(texts)} texts: give one line of rows per text")
    if rows.max(initial=-1) >= len(documents):
        raise ValueError(f"row {rows.max()} is not in the catalogue of {len(documents)} documents")
    places = [(i, j) for i, j in np.argwhere(rows >= 0).tolist()]
    clean = [text.encode("utf-8", "replace").decode() for text in texts]  # a lone surrogate is no text to any model
    pair_at = [(clean[i], int(rows[i, j])) for i, j in places]
    pairs = list(dict.fromkeys(pair_at))
    known: dict[Pair, float] = {}
    for start in range(0, len(pairs), batch):
        asked = pairs[start : start + batch]
        known |= zip(asked, _checked(ask(asked), asked, documents, calibration).tolist(), strict=True)
    out = np.zeros(rows.shape)
    for place, pair in zip(places, pair_at, strict=True):
        out[place] = known[pair]
    return out


def _checked(
    answer: npt.NDArray[np.floating], asked: Sequence[Pair], documents: Documents, calibration: ScoreCalibration | None
) -> FloatArray:
    # Errors name the document, never the text: they end in logs, which hold no query unless asked to.
    n = len(asked)
    if answer.shape not in ((n,), (n, 1)):
        raise ScoreError(
            f"scores of {n} documents, the first {documents.id_at(asked[0][1])!r}, came in shape {list(answer.shape)} instead "
            f"of [{n}] or [{n}, 1]"
        )
    values = np.asarray(answer, np.float64).reshape(n)
    bad = ~np.isfinite(values)
    if calibration is None:
        bad |= (values < 0) | (values > 1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        what = "a finite number" if calibration else "a probability (give a calibration where the model answers logits)"
        raise ScoreError(f"the score of document {documents.id_at(asked[first][1])!r} is {values[first]}, not {what}")
    return calibration(values) if calibration else inside(values)
