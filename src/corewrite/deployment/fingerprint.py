"""Which model really answers: 64 fixed pairs, scored when it is accepted and compared whenever it is opened again."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from corewrite.domain import Documents, Settings, keyed_bits, text_key
from corewrite.domain.documents import text_column
from corewrite.fusion import FusionSpec
from corewrite.relevance import RelevanceScorer
from corewrite.relevance.backends import ScorerMismatchError

_log = logging.getLogger(__name__)
FloatArray = npt.NDArray[np.float64]
NUM_TEXTS = NUM_DOCUMENTS = 8
ROUNDING = 1e-3
"""Largest difference between two batchings that is rounding (of half precision), in probability."""
EXACT = 1e-6
"""Within this, two computations of a factor are the same."""


class Fingerprint(Settings):
    """What a model says of fixed pairs.

    Attributes:
        texts: Titles of documents.
        documents: Ids of documents; each text is scored with each document.
        scores: Row by row, texts by documents, probabilities.
        spread: Largest difference between two batchings, in probability.
        batch: Pairs in one call at most under which it holds.
    """

    texts: tuple[str, ...]
    documents: tuple[str, ...]
    scores: tuple[float, ...]
    spread: float = Field(ge=0)
    batch: int = Field(ge=1)


def take_fingerprint(name: str, documents: Documents, build: Callable[[int], RelevanceScorer], batch: int) -> Fingerprint:
    """Score 64 pairs in two batchings.

    Args:
        name: Of the signal, for messages.
        documents: The documents; eight of them, chosen by a hash of their ids, which a changing catalogue hardly changes.
        build: Makes the scorer with a batch size; it must not keep scores.
        batch: Size wanted. A model whose scores depend on the rest of the batch beyond rounding is asked one pair at a time.

    Raises:
        ScorerMismatchError: even one pair at a time it gives two answers.
        ScorerUnavailableError, ScoreError: see `RelevanceScorer.score`.
        ValueError: there are no documents.
    """
    rows = _chosen(documents)
    texts = text_column(documents, "title", rows[:NUM_TEXTS])
    spread = float("inf")
    for size in dict.fromkeys((batch, 1)):
        whole = _scores(build(size), texts, rows)
        # Backwards, and in calls of one text each: other neighbours in every batch, other lengths to pad to.
        single = build(size)
        apart = np.stack([_scores(single, [text], rows[::-1])[0, ::-1] for text in texts])
        spread = float(np.abs(whole - apart).max())
        if spread <= ROUNDING:
            if size != batch:
                _log.warning("signal %r: scores depend on the batch, so the model is asked one pair at a time", name)
            return Fingerprint(
                texts=tuple(texts),
                documents=tuple(documents.load_ids(rows)),
                scores=tuple(whole.ravel().tolist()),
                spread=spread,
                batch=size,
            )
    raise ScorerMismatchError(
        f"signal {name!r}: the model gives the same pair two scores that differ by {spread:.2g}, even one pair at a time: "
        "nothing can be rewarded or replayed by it; make it deterministic (dropout off, no sampling)"
    )


def check_fingerprint(name: str, expected: Fingerprint, documents: Documents, scorer: RelevanceScorer) -> None:
    """Refuse a model that scores the fixed pairs otherwise than when it was accepted.

    Raises:
        ScorerMismatchError: it does; documents that are gone are left out.
        ScorerUnavailableError, ScoreError: see `RelevanceScorer.score`.
    """
    rows = documents.find(expected.documents)
    there = np.flatnonzero(rows >= 0)
    if not len(there):
        return  # a new catalogue: nothing is left to compare
    before = np.array(expected.scores).reshape(len(expected.texts), len(expected.documents))[:, there]
    now = _scores(scorer, expected.texts, rows[there])
    worst = np.unravel_index(int(np.abs(now - before).argmax()), now.shape)
    gap = float(np.abs(now - before)[worst])
    # Documents may have been edited since, so one that moved is no other model; most of them are.
    moved = (np.abs(now - before) > max(ROUNDING, 4 * expected.spread)).mean()
    if moved > 0.5:
        raise ScorerMismatchError(
            f"signal {name!r}: another model answers under the same name and version: {moved:.0%} of {now.size} fixed pairs "
            f"are scored otherwise than when it was accepted, document {expected.documents[there[worst[1]]]!r} by {gap:.2g}: "
            "give a changed model a new version"
        )


def replay_tolerance(spec: FusionSpec, spreads: Sequence[tuple[str, float]]) -> float:
    """Largest difference of a factor that the models' rounding explains, to first order; at least `EXACT`.

    Args:
        spec: The fusion spec.
        spreads: Signals and their spread between two batchings, in probability.
    """
    found = EXACT
    by_name = dict(spreads)
    for stage in spec.stages.values():
        for i in stage.original:
            found = max(found, i.exponent * max(i.eps ** (i.exponent - 1), 1.0) * by_name.get(i.signal, 0.0))
        for j in stage.rewrite:
            # Both sides of the ratio are off by the spread, relative to a value of at least eps.
            found = max(found, 2 * j.exponent * j.hi**j.exponent * by_name.get(j.signal, 0.0) / j.eps)
    return found


def _chosen(documents: Documents) -> npt.NDArray[np.int64]:
    """Eight rows: those of the lowest hashes of their ids among 512 spread evenly."""
    if not len(documents):
        raise ValueError("there are no documents to score: a model is recognised by its scores")
    some = np.unique(np.linspace(0, len(documents) - 1, 512).astype(np.int64))
    keys = np.array([int(keyed_bits(text_key(i))) for i in documents.load_ids(some)], np.uint64)
    return np.asarray(some[np.argsort(keys, kind="stable")[:NUM_DOCUMENTS]], np.int64)


def _scores(scorer: RelevanceScorer, texts: Sequence[str], rows: npt.NDArray[np.int64]) -> FloatArray:
    return np.asarray(scorer.score(list(texts), np.tile(rows, (len(texts), 1))), np.float64)
