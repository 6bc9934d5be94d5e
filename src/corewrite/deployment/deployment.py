"""What serves at one time: catalogue, relevance model and fusion spec, ready to rank and to reward."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from corewrite.deployment.reward import FusedReward
from corewrite.domain import Catalogue
from corewrite.fusion import FusionSpec
from corewrite.relevance import DenseScorer, LateInteraction, RelevanceScorer
from corewrite.search import Cascade, embedded_cascade, signals_of

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Deployment:
    """A relevance model and a fusion spec over a catalogue.

    The same scorers and the same spec object rank in `cascade` and reward in `reward`: there is no second formula.

    Attributes:
        catalogue: The documents.
        model: The deployed relevance model.
        spec: The fusion spec.
    """

    catalogue: Catalogue
    model: LateInteraction
    spec: FusionSpec

    @cached_property
    def cascade(self) -> Cascade:
        """The embedded cascade."""
        return embedded_cascade(self.catalogue, self._dense, self.spec)

    @cached_property
    def reward(self) -> FusedReward:
        """log R under this deployment; recall is asked only where the spec's reward counts it."""
        return FusedReward(self.spec, self._signals, self.catalogue, self._recall if self.spec.reward.recall_weight else None)

    def _recall(self, texts: Sequence[str]) -> list[IntArray]:
        return self.cascade.recall(texts, max(1, self.spec.recall.rewrite_candidates))

    @cached_property
    def _dense(self) -> DenseScorer:
        return DenseScorer(self.model.bind(self.catalogue))

    @cached_property
    def _signals(self) -> dict[str, RelevanceScorer]:
        return signals_of(self._dense)
