"""Which ranking says whether two queries of a launch ask for the same."""

from pathlib import Path

from corewrite.deployment.explain import NoChampionError
from corewrite.deployment.load import load_deployment
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import RankerSettings
from corewrite.logs.outcomes import Overlap
from corewrite.registry import Registry
from corewrite.search import top_overlap
from corewrite.search.documents import read_catalogue
from corewrite.storage.run_layout import RunLayout


def champion_overlap(run: Path, documents: Path, ranker: RankerSettings) -> tuple[Overlap, str]:
    """The overlap of two texts' results under the champion's original-only ranking, and in words what it is.

    Args:
        run: Run folder.
        documents: Parquet of the documents.
        ranker: Where models and engines run that are not ours.

    Raises:
        NoChampionError: nothing was promoted yet.
        RegistryError: an artifact is damaged.
        DocumentsError: the documents cannot be read.
    """
    registry = Registry(RunLayout(run).registry)
    champion = registry.champion()
    if champion is None:
        raise NoChampionError(
            f"{run} has no champion whose ranking could be asked which queries ask for the same: leave `run` and `documents` "
            "out, and texts alone will tell"
        )
    opener = RankerOpener(ranker, read_catalogue(documents))
    cascade = load_deployment(registry, opener, champion.relevance, champion.spec).cascade
    rule = f"similar texts, or the top 50 of both without a rewrite in the ranking of version {champion.version}"
    return top_overlap(cascade), rule
