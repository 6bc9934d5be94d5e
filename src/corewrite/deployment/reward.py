"""The reward: log R, computed by the same fusion spec that ranks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from corewrite.domain import Documents, TrainingInstance, is_identity
from corewrite.fusion import FusionSpec, evaluate_stage, log_reward
from corewrite.relevance import RelevanceScorer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Reach = Callable[[Sequence[str], Sequence[str | None], IntArray], FloatArray]
"""Whether documents enter finerank, 1.0 or 0.0, NaN where that is not known: `Cascade.reach`."""

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
        reach: Says which documents enter finerank; needed where the spec weighs it and recall or rawrank uses the rewrite.
        waits: Whether a model that is not ours is asked: then a phase scores while it still samples.
    """

    spec: FusionSpec
    signals: Mapping[str, RelevanceScorer]
    catalogue: Documents
    reach: Reach | None = None
    waits: bool = False
    _missed: dict[tuple[str, tuple[str, ...]], FloatArray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.spec.reward_problem:
            raise ValueError(self.spec.reward_problem)
        if self.spec.rewards_reach and self.reach is None:
            raise ValueError(
                f"reach_weight of the spec's reward is {self.spec.reward.reach_weight:g}: the reward needs a function that "
                "says which documents enter finerank (`Cascade.reach`)"
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
        asked = [instances[i] for i in used]
        rows, gains, weights = build_document_rows(asked, self.catalogue)
        back = np.array([place[i] for i, _ in flat], np.int64)
        rewrites = [text for _, text in flat]
        log_factors, bad = self._log_factors([x.query.text for x in asked], rewrites, rows, back)
        gained = self._reach_gain(asked, rewrites, rows, back) if self.spec.rewards_reach else None
        result = log_reward(self.spec, log_factors, gains[back], weights[back], gained)
        return np.where(bad, np.nan, result)

    def _log_factors(
        self, queries: Sequence[str], rewrites: Sequence[str], rows: IntArray, back: IntArray
    ) -> tuple[FloatArray | None, BoolArray]:
        """log F of finerank under each rewrite, [rewrites, documents], and which rewrites have a score that failed."""
        stage, bad = self.spec.finerank, np.zeros(len(back), np.bool_)
        if not stage.rewrite or not self.spec.reward.finerank_weight:
            return None, bad
        names = sorted({s.signal for s in stage.rewrite})
        under_query = {s: self.signals[s].score(queries, rows)[back] for s in names}
        under_rewrite = {s: self.signals[s].score(rewrites, rows[back]) for s in names}
        # Not left to the fusion, which takes a failed score for a neutral rewrite.
        divisors = [under_query[s.signal] for s in stage.rewrite if s.relative_to == "original"]
        for values in (*divisors, *under_rewrite.values()):
            bad |= ~np.isfinite(values).all(1)
        factors_only = stage.model_copy(update={"original": ()})
        fused = evaluate_stage(factors_only, under_query, under_rewrite, None, valid=rows[back] >= 0)
        return fused.log_rewrite, bad

    def _reach_gain(
        self, instances: Sequence[TrainingInstance], rewrites: Sequence[str], rows: IntArray, back: IntArray
    ) -> FloatArray:
        """reach(d | q, r) - reach(d | q, none) of D+ under each rewrite, [rewrites, documents], 0 off D+.

        What the query reaches every rewrite reaches too, so only documents that it does not are asked about.
        """
        found = np.zeros((len(back), rows.shape[1]))
        missing = self._missed_by_query(instances, rows)
        asked = np.flatnonzero((missing != 0).any(1)[back])
        if not len(asked):
            return found
        assert self.reach is not None
        width = missing.shape[1]
        wanted = np.where(missing != 0, rows[:, :width], -1)[back[asked]]
        queries = [instances[i].query.text for i in back[asked].tolist()]
        reached = self.reach(queries, [rewrites[i] for i in asked.tolist()], wanted)
        # NaN where either is not known.
        found[asked, :width] = np.where(wanted < 0, 0.0, reached * missing[back[asked]])
        return found

    def _missed_by_query(self, instances: Sequence[TrainingInstance], rows: IntArray) -> FloatArray:
        """1.0 for each document of D+ that the query alone does not bring into finerank, NaN where not known, else 0.0."""
        width = max(len(x.positives) for x in instances)
        keys = [(x.query.text, x.positives) for x in instances]
        known = {key: self._missed[key] for key in keys if key in self._missed}
        new = [i for i, key in enumerate(keys) if key not in known]
        if new:
            assert self.reach is not None
            positive = np.arange(width) < np.array([[len(instances[i].positives)] for i in new])
            wanted = np.where(positive, rows[new, :width], -1)
            reached = self.reach([instances[i].query.text for i in new], [None] * len(new), wanted)
            for i, own, is_positive in zip(new, reached, positive, strict=True):
                known[keys[i]] = (1.0 - own)[is_positive]
            # What could not be scored may be the next time.
            self._missed.update({key: missed for key, missed in known.items() if np.isfinite(missed).all()})
        found = np.zeros((len(instances), width))
        for i, key in enumerate(keys):
            found[i, : len(key[1])] = known[key]
        return found


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
