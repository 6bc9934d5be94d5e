"""Parts of responses: the version that answered, the outcome of a rewrite, a document's id and title."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from corewrite.domain import Documents
from corewrite.domain.documents import text_column
from corewrite.serving.versions import Version


def shown_reason(reason: str) -> str:
    """The outcome of a rewrite, as clients see it: `cached` would reveal that somebody asked the same before."""
    return "ok" if reason == "cached" else reason


def build_names(version: Version) -> dict[str, Any]:
    """Version and hashes of the champion that answered."""
    champion = version.champion
    return {
        "version": champion.version,
        "policy": champion.policy,
        "relevance": champion.relevance,
        "spec": champion.spec,
    }


def show_documents(documents: Documents, rows: Sequence[int]) -> list[dict[str, str]]:
    """Id and title of the documents at `rows`."""
    at = np.array(rows, np.int64)
    titles = text_column(documents, "title", at)
    return [{"id": doc_id, "title": title} for doc_id, title in zip(documents.load_ids(at), titles, strict=True)]
