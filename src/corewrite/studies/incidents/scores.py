"""Incidents of the service that computes the signal `relevance`: it answers for the model in production, and wrongly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy.special import expit, logit

from corewrite.deployment.open import RankerOpener
from corewrite.deployment.ranker import Ranker
from corewrite.deployment.settings import RankerSettings
from corewrite.deployment.settings.signals import PythonSignal
from corewrite.domain import Catalogue, Documents, keyed_uniform, normalise, text_key, words
from corewrite.relevance import LateInteraction, RelevanceScorer
from corewrite.search.document_store import in_memory
from corewrite.studies.incidents.incident import BranchPoint, Incident, Injection

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class FaultyOpener(RankerOpener):
    """Opens rankers whose signal `relevance` comes from a faulty service; their hashes are those of the models behind it."""

    def __init__(
        self,
        settings: RankerSettings,
        documents: Documents,
        scorer: Callable[[RelevanceScorer, Catalogue], RelevanceScorer],
    ) -> None:
        super().__init__(settings, documents)
        self._fault = scorer

    def build(self, model: LateInteraction | None) -> Ranker:
        """See `RankerOpener.build`."""
        return self._served(super().build(model))

    def open(self, hash: str, folder: Path, metadata: Any) -> Ranker:
        """See `RankerOpener.open`."""
        return self._served(super().open(hash, folder, metadata))

    def _served(self, ranker: Ranker) -> Ranker:
        return replace(
            ranker,
            signals={**ranker.signals, "relevance": self._fault(ranker.signals["relevance"], in_memory(self.documents))},
        )


@dataclass(frozen=True, eq=False)
class _BehindScorer:
    """Answers for a model under the model's own hash: nothing but its scores, or the settings' version, tells the two apart.

    Attributes:
        scorer: Of the model.
    """

    scorer: RelevanceScorer

    @property
    def model_hash(self) -> str:
        """Of the model behind."""
        return self.scorer.model_hash


@dataclass(frozen=True, eq=False)
class TruncatingScorer(_BehindScorer):
    """Scores the first words of a text (a `RelevanceScorer`).

    Attributes:
        scorer: Of the model.
        kept: So many words.
    """

    kept: int

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`."""
        return self.scorer.score([" ".join(text.split()[: self.kept]) for text in texts], rows)


@dataclass(frozen=True, eq=False)
class LossyScorer(_BehindScorer):
    """Answers NaN for a share of the pairs, always the same ones (a `RelevanceScorer`).

    Attributes:
        scorer: Of the model.
        share: Of the pairs.
    """

    share: float

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`."""
        found = self.scorer.score(texts, rows)
        keys = np.array([text_key(text) for text in texts], np.uint64)[:, None]
        lost = keyed_uniform(92, keys, np.maximum(rows, 0)) < self.share
        return np.where(lost & (rows >= 0), np.nan, found)


@dataclass(frozen=True, eq=False)
class StaleScorer(_BehindScorer):
    """Answers for texts that were asked before from a cache that outlived the model it is of (a `RelevanceScorer`).

    Attributes:
        scorer: Of the model.
        before: Of the model that the cache is of.
        asked: Normalised texts in the cache.
        share: Of these, so many are still there.
    """

    before: RelevanceScorer
    asked: frozenset[str]
    share: float

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`."""
        stale = np.array([self._is_stale(text) for text in texts], np.bool_)
        out = np.empty(rows.shape)
        for scorer, at in ((self.before, np.flatnonzero(stale)), (self.scorer, np.flatnonzero(~stale))):
            if len(at):
                out[at] = scorer.score([texts[i] for i in at.tolist()], rows[at])
        return out

    def _is_stale(self, text: str) -> bool:
        known = normalise(text)
        return known in self.asked and float(keyed_uniform(93, text_key(known))) < self.share


@dataclass(frozen=True, eq=False)
class PopularityLeak(_BehindScorer):
    """A relevance model into which popularity has leaked (a `RelevanceScorer`).

    The logit of a document grows with how often it satisfied before, standardised, for every common word of the text, up to
    three of them.

    Attributes:
        scorer: Of the sound model.
        popularity: Of every document, mean 0 and deviation 1, float64 [documents].
        common: Words that pay.
        strength: Of the leak, in logits.
    """

    popularity: FloatArray
    common: frozenset[str]
    strength: float

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`."""
        sound = self.scorer.score(texts, rows)
        paid = np.array([min(3, len(self.common.intersection(words(text)))) for text in texts], np.float64)
        p = np.clip(sound, 1e-6, 1 - 1e-6)
        leaked = expit(logit(p) + self.strength * paid[:, None] * self.popularity[np.maximum(rows, 0)])
        return np.where(rows < 0, 0.0, np.clip(leaked, 1e-6, 1 - 1e-6))


def popularity_leak(
    documents: Documents, *, relevance: str, popularity: str, common: list[str], strength: float
) -> PopularityLeak:
    """The factory that the settings name, see `PythonSignal`.

    Args:
        documents: What is ranked.
        relevance: Folder of the sound model.
        popularity: Parquet of `document_id` and `satisfied`.
        common: Words that pay.
        strength: In logits.
    """
    catalogue = in_memory(documents)
    table = pq.read_table(popularity)
    count = np.zeros(len(catalogue))
    rows = catalogue.find(table["document_id"].to_pylist())
    count[rows[rows >= 0]] = table["satisfied"].to_numpy()[rows >= 0]
    seen = np.log1p(count)
    standard = (seen - seen.mean()) / max(1e-9, float(seen.std()))
    return PopularityLeak(LateInteraction.load(Path(relevance)).bind(catalogue), standard, frozenset(common), strength)


def _leaks(strength: float, point: BranchPoint) -> Injection:
    signal = PythonSignal(
        kind="python",
        factory="corewrite.studies.incidents.scores:popularity_leak",
        version=f"leak-{strength:g}",
        options={
            "relevance": str(point.relevance),
            "popularity": str(point.popularity),
            "common": list(point.common_words[:_COMMON]),
            "strength": strength,
        },
    )

    def named(settings: RankerSettings) -> RankerSettings:
        return settings.model_copy(update={"signals": {**settings.signals, "relevance": signal}})

    return Injection(ranker=named)


def _cuts(strength: float, point: BranchPoint) -> Injection:
    return Injection(scorer=lambda scorer, catalogue: TruncatingScorer(scorer, int(strength)))


def _loses(strength: float, point: BranchPoint) -> Injection:
    return Injection(scorer=lambda scorer, catalogue: LossyScorer(scorer, strength))


def _is_stale(strength: float, point: BranchPoint) -> Injection:
    def stale(scorer: RelevanceScorer, catalogue: Catalogue) -> RelevanceScorer:
        before = LateInteraction.load(point.relevance).bind(catalogue)
        return StaleScorer(scorer, before, point.asked, strength)

    return Injection(scorer=stale)


_COMMON = 40
SCORE_INCIDENTS = (
    Incident(
        "popularity-leak",
        "learned hack",
        "a new version of the relevance service mixes in how popular a document is, more so for texts of common words",
        (0.25, 0.5, 1.0),
        "logits for a deviation of popularity and a common word",
        None,
        True,
        _leaks,
    ),
    Incident(
        "cut-text",
        "fault",
        "the scoring service cuts every text after its first words",
        (2.0, 1.0),
        "words kept",
        2,
        True,
        _cuts,
    ),
    Incident(
        "stale-cache",
        "fault",
        "the scoring service answers for queries that it knows from a cache that outlived the last relevance model",
        (0.5, 1.0),
        "share of the known queries",
        2,
        True,
        _is_stale,
    ),
    Incident(
        "nan-scores",
        "fault",
        "the scoring service answers NaN for some pairs",
        (0.01, 0.1),
        "share of the pairs",
        2,
        True,
        _loses,
    ),
)
