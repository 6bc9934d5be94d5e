"""The reward: log R, computed by the same fusion spec that ranks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from corewrite.domain import Documents, TrainingInstance, is_identity
from corewrite.fusion import FusionSpec, evaluate_stage, log_reward
from corewrite.relevance import RelevanceScorer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Recall = Callable[[Sequence[str]], Sequence[IntArray]]

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class FusedReward:
    """log R of rewrites under a fusion spec and the deployed relevance model (a `RewardFunction`).

    The identity (`is_identity`: the query itself, or nothing) has exactly 0.0 under every spec and model and is not asked
    about: the cascade serves it as no rewrite, while a model that scores in batches may give one text two numbers.

    Attributes:
        spec: The fusion spec that ranks.
        signals: Scorers by signal name, the very ones the cascade uses.
        catalogue: The documents.
        recall: Catalogue rows that each of some texts recalls, best first; needed where the spec's recall_weight is above 0.
        waits: Whether a model that is not ours is asked: then a phase scores while it still samples.
    """

    spec: FusionSpec
    signals: Mapping[str, RelevanceScorer]
    catalogue: Documents
    recall: Recall | None = None
    waits: bool = False

    def __post_init__(self) -> None:
        if self.spec.reward.recall_weight and self.recall is None:
            raise ValueError(
                "the spec's recall_weight (lambda_rec) is above 0: the reward needs a function that recalls, or a weight of 0"
            )

    def __call__(self, instances: Sequence[TrainingInstance], texts: Sequence[Sequence[str]]) -> list[FloatArray]:
        """log R of each instance's `texts`, one float64 array per instance; NaN where the model could not score."""
        flat = [(i, text) for i, row in enumerate(texts) for text in row]
        out = np.zeros(len(flat))
        changed = [place for place, (i, text) in enumerate(flat) if not is_identity(instances[i].query.text, text)]
        for start in range(0, len(changed), _ROWS_AT_ONCE):
            chunk = changed[start : start + _ROWS_AT_ONCE]
            out[chunk] = self._score(instances, [flat[place] for place in chunk])
        ends = np.cumsum([0, *map(len, texts)])
        return [out[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]

    def _score(self, instances: Sequence[TrainingInstance], flat: Sequence[tuple[int, str]]) -> FloatArray:
        used = sorted({i for i, _ in flat})
        place = {i: k for k, i in enumerate(used)}
        rows, gains, weights = build_document_rows([instances[i] for i in used], self.catalogue)
        back = np.array([place[i] for i, _ in flat], np.int64)
        queries, rewrites = [instances[i].query.text for i in used], [text for _, text in flat]
        log_factors = {}
        bad = np.zeros(len(flat), np.bool_)
        for name, stage in self.spec.stages.items():
            if not stage.rewrite:
                continue
            names = sorted({s.signal for s in stage.rewrite})
            under_query = {s: self.signals[s].score(queries, rows)[back] for s in names}
            under_rewrite = {s: self.signals[s].score(rewrites, rows[back]) for s in names}
            # Not left to the fusion, which takes a failed score for a neutral rewrite.
            divisors = [under_query[s.signal] for s in stage.rewrite if s.relative_to == "original"]
            for values in (*divisors, *under_rewrite.values()):
                bad |= ~np.isfinite(values).all(1)
            factors_only = stage.model_copy(update={"original": ()})
            fused = evaluate_stage(factors_only, under_query, under_rewrite, None, valid=rows[back] >= 0)
            log_factors[name] = fused.log_rewrite
        hit_gain = self._hit_gain(queries, rewrites, rows, gains, back) if self.spec.reward.recall_weight else None
        result = log_reward(self.spec, log_factors, gains[back], weights[back], hit_gain)
        return np.where(bad, np.nan, result)

    def _hit_gain(
        self, queries: Sequence[str], rewrites: Sequence[str], rows: IntArray, gains: FloatArray, back: IntArray
    ) -> FloatArray:
        """hit_m(r) - hit_m(q): the shares of D+ among the first m that rewrite and query recall."""
        m = self.spec.recall.rewrite_candidates
        wanted = [set(row[gain > 0].tolist()) for row, gain in zip(rows, gains, strict=True)]

        def hits(texts: Sequence[str], owners: Sequence[int]) -> FloatArray:
            assert self.recall is not None
            found = self.recall(texts)
            return np.array(
                [len(wanted[i] & set(row[:m].tolist())) / len(wanted[i]) for i, row in zip(owners, found, strict=True)]
            )

        return hits(rewrites, back.tolist()) - hits(queries, range(len(queries)))[back]


def build_document_rows(instances: Sequence[TrainingInstance], catalogue: Documents) -> tuple[IntArray, FloatArray, FloatArray]:
    """D+ and D- side by side: catalogue rows (-1 pads), gains (0 off D+) and weights (0 off D-), [instances, documents].

    Raises:
        KeyError: a document of an instance is not in the catalogue.
    """
    width = max(len(x.positives) + len(x.negatives) for x in instances)
    rows = np.full((len(instances), width), -1, np.int64)
    gains, weights = np.zeros(rows.shape), np.zeros(rows.shape)
    found = iter(catalogue.rows([d for x in instances for d in (*x.positives, *x.negatives)]).tolist())
    for i, x in enumerate(instances):
        p, n = len(x.positives), len(x.negatives)
        rows[i, : p + n] = list(islice(found, p + n))
        gains[i, :p] = x.gains
        weights[i, p : p + n] = x.weights
    return rows, gains, weights
