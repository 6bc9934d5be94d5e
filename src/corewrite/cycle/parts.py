"""Parts of a cycle that a study may put others in the place of; nobody else does."""

from collections.abc import Callable
from dataclasses import dataclass

from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Documents
from corewrite.rewriter import Rewriter


def as_trained(policy: Rewriter) -> Rewriter:
    """The policy itself."""
    return policy


@dataclass(frozen=True)
class CycleParts:
    """Parts of a cycle.

    Attributes:
        opener: Opens rankers, as settings name them, over documents.
        export: From the trained policy to the one that is saved, gated and promoted.
    """

    opener: Callable[[RankerSettings, Documents], RankerOpener] = RankerOpener
    export: Callable[[Rewriter], Rewriter] = as_trained
