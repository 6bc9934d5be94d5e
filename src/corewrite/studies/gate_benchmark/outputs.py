"""Outputs of a policy, or of a rewriting, on the benchmark's searches: lists and rewards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.served import fused_lists, log_rewards
from corewrite.domain import Query, TrainingInstance
from corewrite.gate import Evaluation, PolicyOutputs
from corewrite.studies.gate_benchmark.remember import Remembered, Rewrites

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Where = Literal["gate", "truth", "canaries"]


@dataclass(frozen=True, eq=False)
class CaseOutput:
    """What one policy's rewrites come to on the gate's searches.

    Attributes:
        rewrites: Of every search.
        rows: Fused lists, int64 [searches, 10].
        log_reward: log R, nats, float64 [searches].
        policy: Name of the policy; None: a rewriting, which has no likelihoods.
        canaries: Answers to the planted instructions; None: not asked.
    """

    rewrites: Rewrites
    rows: IntArray
    log_reward: FloatArray
    policy: str | None = None
    canaries: Rewrites | None = None


class RankedOutputs:
    """A deployment and what rewrites come to under it, remembered by search and rewrite.

    Args:
        deployment: What ranks and rewards.
        queries: The searches of a place.
        instances: The gate's searches.
    """

    def __init__(
        self,
        deployment: Deployment,
        queries: Callable[[Where], Sequence[Query]],
        instances: Callable[[], Sequence[TrainingInstance]],
    ) -> None:
        self.deployment = deployment
        self._lists: dict[Where, Remembered] = {}
        self._queries, self._instances = queries, instances

    def lists(self, where: Where, rewrites: Rewrites) -> IntArray:
        """Fused lists, int64 [searches, 10]."""
        if where not in self._lists:
            queries = self._queries(where)
            self._lists[where] = Remembered(lambda some, texts: fused_lists(self.deployment, [queries[i] for i in some], texts))
        return self._lists[where](rewrites)

    @cached_property
    def rewards(self) -> Remembered:
        """log R of the gate's searches."""
        instances = self._instances()
        return Remembered(lambda some, texts: log_rewards(self.deployment, [instances[i] for i in some], texts))


def subset(whole: Evaluation, some: IntArray) -> Evaluation:
    """The evaluation on some of its searches, with all that it holds."""

    def of(side: PolicyOutputs) -> PolicyOutputs:
        values = {f.name: getattr(side, f.name) for f in fields(side) if f.name != "rewrites"}
        return PolicyOutputs([side.rewrites[i] for i in some], **{n: None if v is None else v[some] for n, v in values.items()})

    return replace(
        whole,
        user_ids=[whole.user_ids[i] for i in some],
        queries=[whole.queries[i] for i in some],
        slices={n: m[some] for n, m in whole.slices.items()},
        candidate=of(whole.candidate),
        champion=of(whole.champion),
        original_judge_ndcg=None if whole.original_judge_ndcg is None else whole.original_judge_ndcg[some],
        original_corrected_ndcg=None if whole.original_corrected_ndcg is None else whole.original_corrected_ndcg[some],
        kl=None if whole.kl is None else {n: v[some] for n, v in whole.kl.items()},
        recent=None if whole.recent is None else of(whole.recent),
    )
