"""The champion out of the registry, ready to search with, and one search explained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.documents import open_documents
from corewrite.deployment.load import load_deployment, load_policy
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.served import served_rewrites
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Query, Settings, query_to_json
from corewrite.domain.documents import text_column
from corewrite.fusion import explain_stage
from corewrite.registry import Champion, Registry
from corewrite.rewriter import MAX_NEW_TOKENS, Rewriter
from corewrite.search import Trace


class NoChampionError(RuntimeError):
    """The registry has no champion yet."""


class SearchSections(Settings):
    """What `corewrite search` reads of `corewrite.yaml`."""

    run: Path | None = None
    """Run folder whose champion searches."""
    documents: Path | None = None
    """The documents; None: those that the run folder names."""
    ranker: RankerSettings = RankerSettings()
    """Where the champion's models and the engine run."""


@dataclass(frozen=True, eq=False)
class ServedPolicy:
    """What is in production.

    Attributes:
        champion: The triple.
        deployment: Its relevance model and fusion spec over the documents.
        policy: Its rewriter.
    """

    champion: Champion
    deployment: Deployment
    policy: Rewriter


def load_champion(documents: Path, registry: Registry, ranker: RankerSettings | None = None) -> ServedPolicy:
    """Load the champion; its artifacts are checked against their hashes first.

    Args:
        documents: Parquet of the documents.
        registry: Where it is.
        ranker: Where models and engines run that are not ours; None: there are none.

    Raises:
        NoChampionError: nothing was promoted yet.
        RegistryError: an artifact is damaged.
        DocumentsError: the documents cannot be read.
    """
    champion = registry.champion()
    if champion is None:
        last = registry.decisions()[-1:]
        why = f"; the last decision was {last[0].verdict}: {last[0].reason}" if last else ""
        raise NoChampionError(f"{registry.root} has no champion: nothing was promoted yet{why}")
    settings = ranker or RankerSettings()
    opener = RankerOpener(settings, open_documents(documents, settings))
    deployment = load_deployment(registry, opener, champion.relevance, champion.spec)
    return ServedPolicy(champion, deployment, load_policy(registry, champion.policy))


def explain_search(
    served: ServedPolicy,
    query: Query,
    *,
    rewrite: str | None = None,
    depth: int = 10,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> dict[str, Any]:
    """Search once with and once without the rewrite, and say what it did.

    Args:
        served: What is in production.
        query: As typed, in its context.
        rewrite: Used instead of the champion's.
        depth: Results.
        max_new_tokens: Length limit of a rewrite, tokens.

    Returns:
        JSON: query and context, rewrite, signal_status, candidates by source, results with id, title, score, `rank_without`
        (None: not in the list without the rewrite) and factors whose product is the score, and `dropped`, what left the list.
    """
    used = rewrite or served_rewrites(served.policy, [query], max_new_tokens=max_new_tokens)[0]
    cascade, documents = served.deployment.cascade, served.deployment.documents
    with_it, without = cascade.trace([query.text], [used]), cascade.trace([query.text], [None])
    after, before = _ranked(with_it)[:depth], _ranked(without)
    place = {row: k + 1 for k, row in enumerate(before)}
    columns = {int(row): j for j, row in enumerate(with_it.finerank.rows[0]) if row >= 0}
    fusion = with_it.finerank.fusion

    def load_title(row: int) -> str:
        return text_column(documents, "title", np.array([row], np.int64))[0]

    return {
        **query_to_json(query),
        "rewrite": used or "",
        "policy": served.champion.policy,
        "spec": served.deployment.spec.spec_hash,
        "signal_status": {
            f"{name}.{signal}": str(state[0])
            for name, stage in (("rawrank", with_it.rawrank), ("finerank", with_it.finerank))
            for signal, state in stage.fusion.status.items()
        },
        "candidates": {
            "original": int((without.rawrank.rows >= 0).sum()),
            "rewrite_only": int(with_it.from_rewrite.sum()),
            "finerank": int((with_it.finerank.rows >= 0).sum()),
        },
        "results": [
            {
                "rank": k + 1,
                "rank_without": place.get(row),
                "id": documents.id_at(row),
                "title": load_title(row),
                "score": float(fusion.score[0, columns[row]]),
                "factors": explain_stage(fusion, (0, columns[row])),
            }
            for k, row in enumerate(after)
        ],
        "dropped": [
            {"id": documents.id_at(row), "title": load_title(row), "rank_without": place[row]}
            for row in before[:depth]
            if row not in after
        ],
    }


def _ranked(trace: Trace) -> list[int]:
    rows = np.take_along_axis(trace.finerank.rows, trace.order, 1)[0]
    return [int(row) for row in rows if row >= 0]
