"""The cascade in batches: recall, rawrank, finerank, with the rewrite as parallel signals.

What the rewrite may do is bounded at every stage: recall is a union that never cuts the original lists, rawrank passes on
the original top P whatever the rewrite says, and both rank stages multiply in clipped factors. With no rewrite the
answer is the answer of a system that has no rewriter, byte for byte.
"""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import cast

import numpy as np
import numpy.typing as npt
from cachetools import FIFOCache

from corewrite.domain import Documents, SignalStatus, is_identity
from corewrite.domain.documents import load_prior
from corewrite.fusion import FusionSpec, StageFusion, StageSpec, evaluate_stage
from corewrite.relevance import DenseRelevanceScorer, RelevanceScorer
from corewrite.search.engines.port import SearchEngine, TextEngine
from corewrite.search.outcomes import Answers, Candidates, CascadeStage, Rawranked, Trace

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Rewrites = str | tuple[str, ...] | None
"""What a search is given: one rewrite, several (their log factors are averaged), or none."""

_CHUNK = 512
_REMEMBERED = 200_000


class Cascade:
    """Recall, rawrank and finerank over one catalogue with one fusion spec.

    Attributes:
        catalogue: The documents.
        spec: Ranks with this; `with_spec` gives the same cascade under another.
    """

    def __init__(
        self,
        catalogue: Documents,
        engine: SearchEngine | TextEngine,
        signals: Mapping[str, RelevanceScorer],
        dense: DenseRelevanceScorer | None,
        spec: FusionSpec,
    ) -> None:
        """Make a cascade.

        Args:
            catalogue: The documents.
            engine: Recall.
            signals: Scorers by the signal names of the spec. The catalogue's `prior` is always there.
            dense: Embeds texts for recall by vectors, which the engine then must have; None: recall goes by words alone.
            spec: The fusion spec.

        Raises:
            ValueError: the spec names a signal that nothing computes.
        """
        self.catalogue = catalogue
        self.spec = spec
        self._engine = engine
        self._signals = dict(signals)
        self._dense = dense
        self._recalled: FIFOCache[tuple[str, int], IntArray] = FIFOCache(_REMEMBERED)
        self._recalled_lock = Lock()
        known = {*signals, "prior"}
        for name, stage in spec.stages.items():
            wanted = {s.signal for s in stage.original} | {s.signal for s in stage.rewrite}
            if wanted - known:
                raise ValueError(
                    f"stage {name!r} of the fusion spec uses signal(s) {sorted(wanted - known)} that nothing computes; "
                    f"there are {sorted(known)}"
                )

    @property
    def signals(self) -> Mapping[str, RelevanceScorer]:
        """Scorers by signal name."""
        return self._signals

    @property
    def embeds(self) -> bool:
        """Whether recall goes by vectors too."""
        return self._dense is not None

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors of the space that recall searches, float32 [texts, dims]; zero where nothing of a text is known.

        Raises:
            ValueError: recall goes by words alone.
        """
        if self._dense is None:
            raise ValueError("recall of this deployment goes by words alone: there is no space to embed texts in")
        return self._dense.embed_texts(texts)

    def with_spec(self, spec: FusionSpec) -> "Cascade":
        """The same cascade under `spec`; what was recalled before stays remembered."""
        other = Cascade(self.catalogue, self._engine, self._signals, self._dense, spec)
        other._recalled, other._recalled_lock = self._recalled, self._recalled_lock
        return other

    def search(self, queries: Sequence[str], rewrites: Sequence[Rewrites], depth: int = 10) -> Answers:
        """Answer a batch; equal (query, rewrite) pairs are answered once.

        Args:
            queries: What was typed.
            rewrites: The rewrite, or rewrites, of each; None where there is none.
            depth: Documents per answer.

        Raises:
            ValueError: lengths differ.
        """
        if len(queries) != len(rewrites):
            raise ValueError(f"{len(queries)} queries but {len(rewrites)} rewrites")
        place: dict[tuple[str, Rewrites], int] = {}
        back = np.array([place.setdefault(p, len(place)) for p in zip(queries, rewrites, strict=True)], np.int64)
        distinct = list(place)
        parts = []
        for start in range(0, len(distinct), _CHUNK):
            chunk = distinct[start : start + _CHUNK]
            parts.append(_top(self.trace([q for q, _ in chunk], [r for _, r in chunk]), depth))
        if not parts:
            return Answers(np.empty((0, depth), np.int64), np.empty((0, depth)), {})
        names = parts[0].factors
        return Answers(
            np.concatenate([p.rows for p in parts])[back],
            np.concatenate([p.scores for p in parts])[back],
            {name: np.concatenate([p.factors[name] for p in parts])[back] for name in names},
        )

    def recall(self, texts: Sequence[str], k: int) -> list[IntArray]:
        """Rows that a text alone recalls: lexical and dense in turn, best first, at most 2k without repeats."""
        with self._recalled_lock:
            known = {t: self._recalled[t, k] for t in dict.fromkeys(texts) if (t, k) in self._recalled}
        missing = [t for t in dict.fromkeys(texts) if t not in known]
        fresh: dict[str, IntArray] = {}
        if missing:
            found = [self._engine.search_text(missing, k)]
            if self._dense is not None:
                vectors = self._dense.embed_texts(missing)
                found.append(cast(SearchEngine, self._engine).search_vector(vectors, k))
            for text, *lists in zip(missing, *found, strict=True):
                fresh[text] = np.array(_merged([rows[rows >= 0].tolist() for rows in lists]), np.int64)
        with self._recalled_lock:
            self._recalled.update({(text, k): rows for text, rows in fresh.items()})
        known |= fresh
        return [known[text] for text in texts]

    def trace(self, queries: Sequence[str], rewrites: Sequence[Rewrites]) -> Trace:
        """Answer a small batch and keep every candidate and factor of every stage."""
        candidates = self.candidates(queries, rewrites)
        rawrank = self.rawrank(queries, rewrites, candidates)
        return self.finerank(queries, rewrites, rawrank)

    def candidates(self, queries: Sequence[str], rewrites: Sequence[Rewrites]) -> Candidates:
        """Recall of a small batch.

        The three stages of `trace` on their own, for a server whose rewrite may come late: each takes the rewrites as far as
        they are there when it starts.
        """
        spec, used = self.spec, _used(queries, rewrites)
        original = self.recall(queries, spec.recall.original_candidates)
        extra: list[IntArray] = [np.empty(0, np.int64)] * len(queries)
        m = spec.recall.rewrite_candidates
        if spec.recall.use_rewrite and m > 0:
            texts = [text for several in used for text in several]
            found = dict(zip(texts, self.recall(texts, m), strict=True))
            for i, several in enumerate(used):
                if several:
                    rows = np.array(_merged([found[text].tolist() for text in several]), np.int64)
                    extra[i] = rows[~np.isin(rows, original[i])][:m]
        return Candidates(*_pad(original, extra))

    def rawrank(self, queries: Sequence[str], rewrites: Sequence[Rewrites], candidates: Candidates) -> Rawranked:
        """Score the candidates of `candidates`, and choose those that go on."""
        return self._rawrank(queries, rewrites, candidates, self.under_query(self.spec.rawrank, queries, candidates.rows))

    def finerank(self, queries: Sequence[str], rewrites: Sequence[Rewrites], rawrank: Rawranked) -> Trace:
        """Score and order what `rawrank` kept."""
        kept = rawrank.kept
        under_query = self.under_query(self.spec.finerank, queries, kept)
        fused = self._fuse(self.spec.finerank, under_query, _used(queries, rewrites), kept)
        order = np.lexsort((kept, -fused.log_score), axis=1)
        return Trace(rawrank.stage, CascadeStage(kept, fused), order, rawrank.candidates.from_rewrite)

    def reach(self, queries: Sequence[str], rewrites: Sequence[Rewrites], rows: IntArray) -> FloatArray:
        """Whether documents enter finerank: recalled, and in rawrank's fused top K or the original top P.

        A document that is in without a rewrite is in with any: the original lists are never cut, and P is at least K.

        Args:
            queries: What was typed.
            rewrites: The rewrite, or rewrites, of each; None where there is none.
            rows: Catalogue rows to ask about, int64 [searches, documents], -1 pads.

        Returns:
            1.0 where the document enters and 0.0 where it does not, float64 as `rows`; NaN for all documents of a search that
            one of rawrank's signals could not be computed for.
        """
        found = np.zeros(rows.shape)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            found[part] = self._reach(queries[part], rewrites[part], rows[part])
        return found

    def _reach(self, queries: Sequence[str], rewrites: Sequence[Rewrites], rows: IntArray) -> FloatArray:
        candidates = self.candidates(queries, rewrites)
        # What is not recalled needs no scores to be out.
        asked = np.flatnonzero(_is_among(rows, candidates.rows).any(1))
        found = np.zeros(rows.shape)
        if not len(asked):
            return found
        places = asked.tolist()
        queries, rewrites = [queries[i] for i in places], [rewrites[i] for i in places]
        candidates = Candidates(candidates.rows[asked], candidates.from_rewrite[asked])
        under_query = self.under_query(self.spec.rawrank, queries, candidates.rows)
        failed = np.zeros(len(asked), np.bool_)
        for signal in self.spec.rawrank.original:
            failed |= ~(np.isfinite(under_query[signal.signal]) | (candidates.rows < 0)).all(1)
        # An original signal that failed would stop the whole batch: any number in its place, the search is not known anyway.
        whole = {name: np.where(failed[:, None], 1.0, values) for name, values in under_query.items()}
        ranked = self._rawrank(queries, rewrites, candidates, whole)
        for status in ranked.stage.fusion.status.values():
            failed |= status == SignalStatus.ERROR
        found[asked] = np.where(failed[:, None], np.nan, _is_among(rows[asked], ranked.kept))
        return found

    def under_query(self, stage: StageSpec, queries: Sequence[str], rows: IntArray) -> dict[str, FloatArray]:
        """Every signal of a stage under the queries, by name, float64 [searches, candidates], before anything is fused."""
        names = {s.signal for s in stage.original} | {s.signal for s in stage.rewrite}
        found = {name: self._signals[name].score(queries, rows) for name in sorted(names & self._signals.keys())}
        if "prior" in names - self._signals.keys():
            prior = np.zeros(rows.shape)
            prior[rows >= 0] = load_prior(self.catalogue, rows[rows >= 0])
            found["prior"] = prior
        return found

    def _rawrank(
        self,
        queries: Sequence[str],
        rewrites: Sequence[Rewrites],
        candidates: Candidates,
        under_query: Mapping[str, FloatArray],
    ) -> Rawranked:
        fused = self._fuse(self.spec.rawrank, under_query, _used(queries, rewrites), candidates.rows)
        depths = self.spec.depths
        kept = _keep(candidates.rows, candidates.from_rewrite, fused, depths.finerank, depths.protected)
        return Rawranked(candidates, CascadeStage(candidates.rows, fused), kept)

    def _fuse(
        self, stage: StageSpec, under_query: Mapping[str, FloatArray], used: Sequence[tuple[str, ...]], rows: IntArray
    ) -> StageFusion:
        fused = []
        for k in range(max([1, *map(len, used)])):
            where = np.array([i for i, several in enumerate(used) if len(several) > k], np.int64)
            under_rewrite: dict[str, FloatArray] | None = None
            available: dict[str, BoolArray] | None = None
            if len(where) and stage.rewrite:
                present = np.zeros(len(used), np.bool_)
                present[where] = True
                under_rewrite, available = {}, {}
                for signal in stage.rewrite:
                    values = np.ones(rows.shape)
                    values[where] = self._signals[signal.signal].score([used[i][k] for i in where], rows[where])
                    under_rewrite[signal.signal] = values
                    available[signal.signal] = present
            fused.append(evaluate_stage(stage, under_query, under_rewrite, available, valid=rows >= 0))
        return fused[0] if len(fused) == 1 else _mean(fused, np.array([max(1, len(several)) for several in used]))


def _used(queries: Sequence[str], rewrites: Sequence[Rewrites]) -> list[tuple[str, ...]]:
    """The rewrites that can change anything: the identity is none, the original signals already hold all it could say."""
    several = [(r,) if isinstance(r, str) else r or () for r in rewrites]
    return [tuple(r for r in dict.fromkeys(texts) if not is_identity(q, r)) for q, texts in zip(queries, several, strict=True)]


def _mean(fused: Sequence[StageFusion], count: IntArray) -> StageFusion:
    """One stage under several rewrites: the mean of the log factors over the `count` rewrites of each search."""
    n = count[:, None]
    log_rewrite = sum(f.log_rewrite for f in fused) / n  # of a rewrite that is not there, exactly 0
    factors = {name: np.exp(sum(np.log(f.rewrite_factors[name]) for f in fused) / n) for name in fused[0].rewrite_factors}
    status = {
        name: np.array([_worst([f.status[name][i] for f in fused[:c]]) for i, c in enumerate(count)], object)
        for name in fused[0].status
    }
    first = fused[0]
    return StageFusion(
        first.log_original, log_rewrite, first.log_original + log_rewrite, first.original_factors, factors, status
    )


def _worst(states: Sequence[SignalStatus]) -> SignalStatus:
    return next((s for s in states if s != SignalStatus.OK), SignalStatus.OK)


def _merged(lists: Sequence[Sequence[int]]) -> list[int]:
    """The lists in turn, best first, without repeats."""
    longest = max(map(len, lists))
    return list(dict.fromkeys(x[i] for i in range(longest) for x in lists if i < len(x)))


def _pad(original: Sequence[IntArray], extra: Sequence[IntArray]) -> tuple[IntArray, BoolArray]:
    width = max([1, *(len(o) + len(x) for o, x in zip(original, extra, strict=True))])
    rows = np.full((len(original), width), -1, np.int64)
    added = np.zeros(rows.shape, np.bool_)
    for i, (o, x) in enumerate(zip(original, extra, strict=True)):
        rows[i, : len(o)] = o
        rows[i, len(o) : len(o) + len(x)] = x
        added[i, len(o) : len(o) + len(x)] = True
    return rows, added


def _is_among(rows: IntArray, others: IntArray) -> BoolArray:
    """Whether each row is among the others of its search, bool as `rows`; a pad is not."""
    return np.asarray((rows[:, :, None] == others[:, None, :]).any(2) & (rows >= 0))


def _keep(rows: IntArray, added: BoolArray, fused: StageFusion, k: int, p: int) -> IntArray:
    """Candidates that reach finerank: the fused top `k` and the original top `p`, in the order of the catalogue."""
    without = np.where(added, -np.inf, fused.log_original)
    keep = np.zeros(rows.shape, np.bool_)
    for score, n in ((fused.log_score, k), (without, p)):
        top = np.zeros(rows.shape, np.bool_)
        np.put_along_axis(top, np.lexsort((rows, -score), axis=1)[:, :n], True, 1)
        # Pads score -inf, and where fewer than p are original, so do those that would fill up the original top p.
        keep |= top & (score > -np.inf)
    width = max(1, int(keep.sum(1).max(initial=1)))
    # Catalogue order, so that what was recalled by whom leaves no trace in ties.
    ordered = np.sort(np.where(keep, rows, np.iinfo(np.int64).max), axis=1)[:, :width]
    return np.where(ordered == np.iinfo(np.int64).max, -1, ordered)


def _top(trace: Trace, depth: int) -> Answers:
    """The ranked head of a traced batch."""
    order = trace.order[:, :depth]
    short = ((0, 0), (0, depth - order.shape[1]))
    rows = np.take_along_axis(trace.finerank.rows, order, 1)
    fusion = trace.finerank.fusion

    def ranked(values: FloatArray, fill: float) -> FloatArray:
        head = np.take_along_axis(np.broadcast_to(values, trace.finerank.rows.shape), order, 1)
        return np.pad(np.where(rows < 0, fill, head), short, constant_values=fill)

    factors = {f"original.{name}": ranked(v, 1.0) for name, v in fusion.original_factors.items()}
    factors |= {f"rewrite.{name}": ranked(v, 1.0) for name, v in fusion.rewrite_factors.items()}
    return Answers(np.pad(rows, short, constant_values=-1), ranked(fusion.log_score, -np.inf), factors)
