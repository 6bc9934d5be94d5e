"""The unit of training: one logged search and what its chain showed to be right and wrong."""

import math
from dataclasses import dataclass

from corewrite.domain.query import Query


@dataclass(frozen=True)
class TrainingInstance:
    """One logged search with D+ and D-.

    Attributes:
        instance_id: The query id of the search.
        user_id: Whose search it was (bootstraps and splits go by user).
        query: Text and context, the context ending before the text was typed.
        positives: D+, ids of documents that satisfied the user here or later in the same reformulation chain.
        gains: Graded weight g of each positive, > 0.
        negatives: D-, ids of documents examined and satisfying nowhere in the chain, and sampled ones.
        weights: Weight w of each negative (inverse examination propensity), > 0.
        timestamp: Seconds since the epoch, UTC.
        evaluation_only: Of a set that only the gate may read: training refuses it.
    """

    instance_id: str
    user_id: str
    query: Query
    positives: tuple[str, ...]
    gains: tuple[float, ...]
    negatives: tuple[str, ...]
    weights: tuple[float, ...]
    timestamp: float = 0.0
    evaluation_only: bool = False

    def __post_init__(self) -> None:
        if len(self.positives) != len(self.gains) or len(self.negatives) != len(self.weights):
            raise ValueError(f"instance {self.instance_id!r}: documents and weights differ in number")
        if not self.positives or not self.negatives:
            raise ValueError(f"instance {self.instance_id!r}: D+ and D- must both hold a document")
        if not all(0 < weight < math.inf for weight in self.gains + self.weights):
            raise ValueError(f"instance {self.instance_id!r}: gains and weights must be finite and above 0")
