"""What the gate looks at: two policies' served outputs on the same queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from corewrite.domain import Query, normalise, words

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PolicyOutputs:
    """What the served (greedy) form of one policy does to every query of an evaluation.

    Attributes:
        rewrites: Text of each query's rewrite; "" where the original query stands.
        log_reward: log R of each rewrite, nats, float64 [queries]; None where it was not computed.
        judge_ndcg: nDCG@10 of the fused list under the judge, float64 [queries]; None where it was not
            computed.
    """

    rewrites: Sequence[str]
    log_reward: FloatArray | None
    judge_ndcg: FloatArray | None

    def __post_init__(self) -> None:
        for i, text in enumerate(self.rewrites):
            if not isinstance(text, str):
                raise TypeError(f"rewrite {i} is {text!r}, not a text: give '' where there is no rewrite")

    def sizes(self) -> dict[str, int]:
        """Number of queries in each field that is given."""
        given = {"rewrites": self.rewrites, "log_reward": self.log_reward, "judge_ndcg": self.judge_ndcg}
        return {name: len(values) for name, values in given.items() if values is not None}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A candidate and the champion on the same queries.

    The candidate's outputs may be of a wrong size: that is for the gate to find. Elsewhere it is an error.

    Attributes:
        user_ids: Whose query each is, [queries].
        queries: The queries with their contexts.
        slices: Which queries are in each named slice (head, torso, tail, context needed, ...), bool
            [queries]. Every part of the traffic worth protecting should be in one.
        candidate: Outputs of the policy proposed.
        champion: Outputs of the policy in production; all rewrites "" where there is none.
        original_judge_ndcg: Judge nDCG@10 with no rewriter, float64 [queries]; None where it was not
            computed.

    Raises:
        ValueError: a field has another size than `queries`, or a slice is not boolean.
    """

    user_ids: Sequence[str]
    queries: Sequence[Query]
    slices: Mapping[str, BoolArray]
    candidate: PolicyOutputs
    champion: PolicyOutputs
    original_judge_ndcg: FloatArray | None

    def __post_init__(self) -> None:
        sizes = {"user_ids": len(self.user_ids)}
        sizes |= {f"champion.{name}": size for name, size in self.champion.sizes().items()}
        if self.original_judge_ndcg is not None:
            sizes["original_judge_ndcg"] = len(self.original_judge_ndcg)
        for name, mask in self.slices.items():
            if not (isinstance(mask, np.ndarray) and mask.dtype == np.bool_):
                raise ValueError(f"slice {name!r} must be a bool array, one entry per query, not {mask!r:.50}")
            sizes[f"slices[{name!r}]"] = len(mask)
        for name, size in sizes.items():
            if size != len(self.queries):
                raise ValueError(f"{name} has {size} entries for {len(self.queries)} queries: align them")

    def __len__(self) -> int:
        return len(self.queries)

    @cached_property
    def candidate_words(self) -> list[list[str]]:
        """Words of what the candidate serves for each query: the rewrite, or the query where none is."""
        return self._served(self.candidate)

    @cached_property
    def champion_words(self) -> list[list[str]]:
        """Words of the text the champion serves for each query."""
        return self._served(self.champion)

    def _served(self, policy: PolicyOutputs) -> list[list[str]]:
        return [words(r if r.strip() else q.text) for q, r in zip(self.queries, policy.rewrites, strict=True)]

    @cached_property
    def context_only(self) -> list[frozenset[str]]:
        """Words of each query's context (earlier queries and titles) that are not in the query."""
        result = []
        for query in self.queries:
            context = {w for text in (*query.context.queries, *query.context.titles) for w in words(text)}
            result.append(frozenset(context.difference(words(query.text))))
        return result

    def changed(self, policy: PolicyOutputs) -> list[str]:
        """Each rewrite of `policy`, normalised; "" where there is none or it says what the query says."""
        pairs = zip(self.queries, map(normalise, policy.rewrites), strict=True)
        return [r if r != normalise(q.text) else "" for q, r in pairs]
