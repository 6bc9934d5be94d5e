"""What serves at one time: documents, ranker and fusion spec, ready to rank and to reward."""

from dataclasses import dataclass
from functools import cached_property

from corewrite.deployment.fingerprint import replay_tolerance
from corewrite.deployment.ranker import Ranker, embedded_ranker
from corewrite.deployment.reward import FusedReward
from corewrite.domain import Catalogue, Documents
from corewrite.fusion import FusionSpec
from corewrite.relevance import LateInteraction
from corewrite.search import Cascade
from corewrite.search.document_store import in_memory


@dataclass(frozen=True, eq=False)
class Deployment:
    """A ranker and a fusion spec.

    The same scorers and the same spec object rank in `cascade` and reward in `reward`: there is no second formula.

    Attributes:
        ranker: Computes the signals, and recalls.
        spec: The fusion spec.

    Raises:
        ValueError: the spec names a signal that nothing computes.
    """

    ranker: Ranker
    spec: FusionSpec

    def __post_init__(self) -> None:
        missing = self.ranker.missing_signals(self.spec)
        if missing:
            raise ValueError(
                f"nothing computes the signal {missing[0]!r} of the fusion spec: say under ranker.signals where it comes from; "
                f"a logged one can only be replayed. There are {', '.join(sorted({*self.ranker.signals, 'prior'}))}"
            )

    @property
    def documents(self) -> Documents:
        """What is ranked."""
        return self.ranker.documents

    @property
    def catalogue(self) -> Catalogue:
        """The documents as a table in memory; see `in_memory`."""
        return in_memory(self.ranker.documents)

    @property
    def model_hash(self) -> str:
        """Content hash of all that scores: see `Ranker.model_hash`."""
        return self.ranker.model_hash

    @property
    def replay_tolerance(self) -> float:
        """Largest difference between two computations of a factor that is rounding."""
        return replay_tolerance(self.spec, self.ranker.spreads)

    @cached_property
    def cascade(self) -> Cascade:
        """The cascade."""
        return Cascade(self.documents, self.ranker.engine, self.ranker.signals, self.ranker.dense, self.spec)

    @cached_property
    def reward(self) -> FusedReward:
        """log R under this deployment; the cascade is asked only where the spec's reward counts reach."""
        reach = self.cascade.reach if self.spec.rewards_reach else None
        return FusedReward(self.spec, self.ranker.signals, self.documents, reach, waits=bool(self.ranker.places))


def embedded_deployment(catalogue: Catalogue, model: LateInteraction, spec: FusionSpec) -> Deployment:
    """The bundled model, the indexes in the process and a fusion spec over a catalogue."""
    return Deployment(embedded_ranker(catalogue, model), spec)
