"""The reward: log R of design section 4, computed by the same fusion spec that ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain import Catalogue, TrainingInstance
from corewrite.fusion import FusionSpec, evaluate_stage, log_reward
from corewrite.relevance import RelevanceScorer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class FusedReward:
    """log R of rewrites under a fusion spec and the deployed relevance model (a `RewardFunction`).

    Attributes:
        spec: The fusion spec that ranks.
        signals: Scorers by signal name, the very ones the cascade uses.
        catalogue: The documents.
    """

    spec: FusionSpec
    signals: Mapping[str, RelevanceScorer]
    catalogue: Catalogue

    def __post_init__(self) -> None:
        if self.spec.reward.recall_weight:
            raise ValueError(
                "the reward's recall_weight (lambda_rec) is above 0, but this reward has no recall term yet: set it to 0"
            )

    def __call__(self, instances: Sequence[TrainingInstance], texts: Sequence[Sequence[str]]) -> list[FloatArray]:
        """log R of each instance's `texts`, one float64 array per instance; NaN where the model could not score."""
        flat = [(i, text) for i, row in enumerate(texts) for text in row]
        out = np.empty(len(flat))
        for start in range(0, len(flat), _ROWS_AT_ONCE):
            chunk = flat[start : start + _ROWS_AT_ONCE]
            out[start : start + len(chunk)] = self._score(instances, chunk)
        ends = np.cumsum([0, *map(len, texts)])
        return [out[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]

    def _score(self, instances: Sequence[TrainingInstance], flat: Sequence[tuple[int, str]]) -> FloatArray:
        used = sorted({i for i, _ in flat})
        place = {i: k for k, i in enumerate(used)}
        rows, gains, weights = documents_of([instances[i] for i in used], self.catalogue)
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
            for values in under_rewrite.values():
                bad |= ~np.isfinite(values).all(1)
            factors_only = stage.model_copy(update={"original": ()})
            fused = evaluate_stage(factors_only, under_query, under_rewrite, None, valid=rows[back] >= 0)
            log_factors[name] = fused.log_rewrite
        result = log_reward(self.spec, log_factors, gains[back], weights[back], None)
        return np.where(bad, np.nan, result)


def documents_of(instances: Sequence[TrainingInstance], catalogue: Catalogue) -> tuple[IntArray, FloatArray, FloatArray]:
    """D+ and D- side by side: catalogue rows (-1 pads), gains (0 off D+) and weights (0 off D-), [instances, documents].

    Raises:
        KeyError: a document of an instance is not in the catalogue.
    """
    width = max(len(x.positives) + len(x.negatives) for x in instances)
    rows = np.full((len(instances), width), -1, np.int64)
    gains, weights = np.zeros(rows.shape), np.zeros(rows.shape)
    for i, x in enumerate(instances):
        p, n = len(x.positives), len(x.negatives)
        rows[i, : p + n] = catalogue.rows([*x.positives, *x.negatives])
        gains[i, :p] = x.gains
        weights[i, p : p + n] = x.weights
    return rows, gains, weights
