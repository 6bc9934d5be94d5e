"""The cascade in batches: recall, rawrank, finerank, with the rewrite as parallel signals.

What the rewrite may do is bounded at every stage: recall is a union that never cuts the original lists, rawrank passes on
the original top P whatever the rewrite says, and both rank stages multiply in clipped factors. With no rewrite the
answer is the answer of a system that has no rewriter, byte for byte.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain import Catalogue
from corewrite.fusion import FusionSpec, StageFusion, StageSpec, evaluate_stage
from corewrite.relevance import DenseRelevanceScorer, RelevanceScorer
from corewrite.search.index import SearchEngine

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_CHUNK = 512
_REMEMBERED = 200_000


@dataclass(frozen=True, eq=False)
class Stage:
    """One rank stage of a batch.

    Attributes:
        rows: Candidates, int64 [searches, candidates], -1 pads.
        fusion: Their scores and factors, [searches, candidates].
    """

    rows: IntArray
    fusion: StageFusion


@dataclass(frozen=True, eq=False)
class Trace:
    """All that happened in a batch, for explaining.

    Attributes:
        rawrank: Candidates and factors at rawrank.
        finerank: Candidates and factors at finerank.
        order: Columns of the finerank candidates in ranked order, int64 [searches, candidates].
        from_rewrite: Whether only the rewrite recalled the candidate, bool, as `rawrank.rows`.
    """

    rawrank: Stage
    finerank: Stage
    order: IntArray
    from_rewrite: BoolArray


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers to a batch of searches.

    Attributes:
        rows: Ranked catalogue rows, int64 [searches, depth], -1 pads.
        scores: Their finerank log-scores, float64 [searches, depth], -inf pads.
        factors: Their finerank factors by name (`original.NAME`, `rewrite.NAME`), float64 [searches, depth]; 1 pads. The
            product of a document's factors is its score.
    """

    rows: IntArray
    scores: FloatArray
    factors: dict[str, FloatArray]


class Cascade:
    """Recall, rawrank and finerank over one catalogue with one fusion spec.

    Attributes:
        catalogue: The documents.
        spec: Ranks with this; `with_spec` gives the same cascade under another.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        engine: SearchEngine,
        signals: Mapping[str, RelevanceScorer],
        dense: DenseRelevanceScorer,
        spec: FusionSpec,
    ) -> None:
        """Make a cascade.

        Args:
            catalogue: The documents.
            engine: Recall.
            signals: Scorers by the signal names of the spec. The catalogue's `prior` is always there.
            dense: Embeds texts for recall.
            spec: The fusion spec.

        Raises:
            ValueError: the spec names a signal that nobody computes.
        """
        self.catalogue = catalogue
        self.spec = spec
        self._engine = engine
        self._signals = dict(signals)
        self._dense = dense
        self._recalled: OrderedDict[tuple[str, int], IntArray] = OrderedDict()
        known = {*signals, "prior"}
        for name, stage in spec.stages.items():
            wanted = {s.signal for s in stage.original} | {s.signal for s in stage.rewrite}
            if wanted - known:
                raise ValueError(
                    f"stage {name!r} of the fusion spec uses signal(s) {sorted(wanted - known)} that nobody computes; "
                    f"there are {sorted(known)}"
                )

    @property
    def signals(self) -> Mapping[str, RelevanceScorer]:
        """Scorers by signal name."""
        return self._signals

    def with_spec(self, spec: FusionSpec) -> "Cascade":
        """The same cascade under `spec`; what was recalled before stays remembered."""
        other = Cascade(self.catalogue, self._engine, self._signals, self._dense, spec)
        other._recalled = self._recalled
        return other

    def search(self, queries: Sequence[str], rewrites: Sequence[str | None], depth: int = 10) -> Answers:
        """Answer a batch; equal (query, rewrite) pairs are answered once.

        Args:
            queries: What was typed.
            rewrites: The rewrite of each, None where there is none.
            depth: Documents per answer.

        Raises:
            ValueError: lengths differ.
        """
        if len(queries) != len(rewrites):
            raise ValueError(f"{len(queries)} queries but {len(rewrites)} rewrites")
        place: dict[tuple[str, str | None], int] = {}
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
        missing = [t for t in dict.fromkeys(texts) if (t, k) not in self._recalled]
        if missing:
            vectors = self._dense.embed_texts(missing)
            nearest = self._engine.search_vector(vectors, k)
            for text, vector, near in zip(missing, vectors, nearest, strict=True):
                lexical = self._engine.search_text(text, k)
                dense = near[near >= 0].tolist() if vector.any() else []
                merged = [row for pair in _in_turn(lexical, dense) for row in pair]
                self._recalled[text, k] = np.array(list(dict.fromkeys(merged)), np.int64)
        found = [self._recalled[text, k] for text in texts]
        while len(self._recalled) > _REMEMBERED:
            self._recalled.popitem(last=False)
        return found

    def trace(self, queries: Sequence[str], rewrites: Sequence[str | None]) -> Trace:
        """Answer a small batch and keep every candidate and factor of every stage."""
        spec = self.spec
        # The identity rewrite is no rewrite: the original signals already hold all it could say.
        used = [r if r and r != q else None for q, r in zip(queries, rewrites, strict=True)]
        original = self.recall(queries, spec.recall.original_candidates)
        extra: list[IntArray] = [np.empty(0, np.int64)] * len(queries)
        m = spec.recall.rewrite_candidates
        if spec.recall.use_rewrite and m > 0:
            where = [i for i, r in enumerate(used) if r]
            for i, rows in zip(where, self.recall([str(used[i]) for i in where], m), strict=True):
                extra[i] = rows[~np.isin(rows, original[i])][:m]
        rows, added = _pad(original, extra)

        rawrank = self._fuse(spec.rawrank, queries, used, rows)
        kept = _keep(rows, added, rawrank, spec.depths.finerank, spec.depths.protected)
        finerank = self._fuse(spec.finerank, queries, used, kept)
        order = np.lexsort((kept, -finerank.log_score), axis=1)
        return Trace(Stage(rows, rawrank), Stage(kept, finerank), order, added)

    def _fuse(self, stage: StageSpec, queries: Sequence[str], used: Sequence[str | None], rows: IntArray) -> StageFusion:
        under_query = {}
        names = {s.signal for s in stage.original} | {s.signal for s in stage.rewrite}
        for name in sorted(names):
            if name == "prior":
                under_query[name] = np.where(rows < 0, 0.0, self.catalogue.prior[np.maximum(rows, 0)])
            else:
                under_query[name] = self._signals[name].score(queries, rows)
        where = np.array([i for i, r in enumerate(used) if r], np.int64)
        under_rewrite: dict[str, FloatArray] | None = None
        available: dict[str, BoolArray] | None = None
        if len(where) and stage.rewrite:
            present = np.zeros(len(queries), np.bool_)
            present[where] = True
            under_rewrite, available = {}, {}
            for signal in stage.rewrite:
                values = np.ones(rows.shape)
                values[where] = self._signals[signal.signal].score([str(used[i]) for i in where], rows[where])
                under_rewrite[signal.signal] = values
                available[signal.signal] = present
        return evaluate_stage(stage, under_query, under_rewrite, available, valid=rows >= 0)


def _in_turn(first: Sequence[int], second: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(source[i] for source in (first, second) if i < len(source)) for i in range(max(len(first), len(second), 0))]


def _pad(original: Sequence[IntArray], extra: Sequence[IntArray]) -> tuple[IntArray, BoolArray]:
    width = max([1, *(len(o) + len(x) for o, x in zip(original, extra, strict=True))])
    rows = np.full((len(original), width), -1, np.int64)
    added = np.zeros(rows.shape, np.bool_)
    for i, (o, x) in enumerate(zip(original, extra, strict=True)):
        rows[i, : len(o)] = o
        rows[i, len(o) : len(o) + len(x)] = x
        added[i, len(o) : len(o) + len(x)] = True
    return rows, added


def _keep(rows: IntArray, added: BoolArray, fused: StageFusion, k: int, p: int) -> IntArray:
    """Candidates that reach finerank: the fused top `k` and the original top `p`, in the order of the catalogue."""
    without = np.where(added | (rows < 0), -np.inf, fused.log_original)
    keep = np.zeros(rows.shape, np.bool_)
    for score, n in ((fused.log_score, k), (without, p)):
        order = np.lexsort((rows, -score), axis=1)[:, :n]
        np.put_along_axis(keep, order, True, 1)
    keep &= rows >= 0
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
