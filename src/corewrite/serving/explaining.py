"""A search with and without its rewrite, with every factor of every result."""

from typing import Any

from corewrite.domain import Documents, Query
from corewrite.fusion import explain_stage
from corewrite.serving.responses import build_names, show_documents, shown_reason
from corewrite.serving.searching import Searcher
from corewrite.serving.versions import Version


async def explain_search(
    searcher: Searcher,
    documents: Documents,
    version: Version,
    query: Query,
    texts: tuple[str, ...],
    *,
    reason: str,
    depth: int,
) -> dict[str, Any]:
    """Search once with and once without the rewrite, and say what it changed.

    Args:
        searcher: Ranks.
        documents: What is searched.
        version: Answers.
        query: What is asked.
        texts: The rewrites; none: both searches are the same.
        reason: Outcome of the rewrite.
        depth: Results.

    Returns:
        The response, as `schemas.ExplainResponse` describes it.

    Raises:
        ValueError: the ranker itself failed.
    """
    trace, after = await searcher.ranked_with(version, query, texts, depth)
    bare, before = await searcher.ranked_with(version, query, (), len(documents))
    rank_before = {row: k + 1 for k, row in enumerate(before.rows)}
    columns = {int(row): j for j, row in enumerate(trace.rawrank.rows[0]) if row >= 0}
    gone = [row for row in before.rows[:depth] if row not in after.rows]
    return {
        "query": query.text,
        "rewrites": list(texts),
        "rewrite_status": shown_reason(reason),
        **build_names(version),
        "signal_status": {name: str(state) for name, state in after.status.items()},
        "candidates": {
            "original": int((bare.rawrank.rows >= 0).sum()),
            "rewrite_only": int(trace.from_rewrite.sum()),
            "finerank": int((trace.finerank.rows >= 0).sum()),
        },
        "results": [
            {
                "rank": k + 1,
                "rank_without": rank_before.get(row),
                **shown,
                "score": score,
                "factors": factors,
                "rawrank_factors": explain_stage(trace.rawrank.fusion, (0, columns[row])),
            }
            for k, (row, shown, score, factors) in enumerate(
                zip(after.rows, show_documents(documents, after.rows), after.scores, after.factors, strict=True)
            )
        ],
        "dropped": [
            {**shown, "rank_without": rank_before[row]}
            for row, shown in zip(gone, show_documents(documents, gone), strict=True)
        ],
    }
