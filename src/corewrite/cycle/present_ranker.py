"""What ranks before a cycle changes anything."""

from dataclasses import dataclass

from corewrite.cycle.config import CycleConfig
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.load import load_deployment
from corewrite.deployment.open import RankerOpener, load_embedder
from corewrite.fusion import default_spec, load_spec
from corewrite.registry import Champion, Registry, RegistryError
from corewrite.relevance import LateInteraction, cold_start
from corewrite.relevance.backends import ScorerMismatchError, ScorerUnavailableError
from corewrite.search.document_store import in_memory


@dataclass(frozen=True, eq=False)
class PresentRanker:
    """What ranked a week.

    Attributes:
        deployment: The champion's relevance model and spec; None where the settings do not name its ranker any more and it does
            not answer.
        gone: Why there is none, else empty.
    """

    deployment: Deployment | None
    gone: str = ""


def open_present_ranker(champion: Champion, registry: Registry, opener: RankerOpener) -> PresentRanker:
    """Open what the champion ranks under.

    Args:
        champion: What is in production.
        registry: Where it is.
        opener: Opens rankers as the settings name them.

    Raises:
        ScorerUnavailableError: it does not answer at present, but the settings name it still: run the cycle again when it does.
    """
    folder = registry.path(registry.artifact("relevance", champion.relevance))
    try:
        return PresentRanker(load_deployment(registry, opener, champion.relevance, champion.spec))
    except (ScorerUnavailableError, ScorerMismatchError, RegistryError, FileNotFoundError) as error:
        if opener.is_current(folder):
            raise
        return PresentRanker(None, f"the champion's ranker, which the settings do not name any more, is gone: {error}")


def open_configured_ranker(
    config: CycleConfig, champion: Champion | None, registry: Registry, opener: RankerOpener
) -> Deployment:
    """Open what the settings name.

    Args:
        config: Settings.
        champion: Whose bundled model is used where one is needed; None: a cold start.
        registry: Where it is.
        opener: Opens rankers as the settings name them, over the documents.
    """
    model: LateInteraction | None = None
    if champion is not None:
        model = load_embedder(registry.path(registry.artifact("relevance", champion.relevance)))
    if model is None and config.ranker.needs_embedder:
        model = cold_start(in_memory(opener.documents), seed=config.seed)
    path = config.ranker.spec or config.spec
    spec = default_spec() if path is None or opener.is_bundled else load_spec(path)
    return Deployment(opener.build(model), spec)
