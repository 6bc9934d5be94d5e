"""What the bundled models and the embedded engine need: all documents in memory, and pictures of all or of none."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corewrite.domain import Catalogue

BYTES_PER_DOCUMENT = 8 * 1024
"""Memory that a machine should have for each document of the embedded ranker.

Measured with 20 words and a picture of 16 dimensions a document, 100,000 against 300,000 of them: at the peak 4.4 KiB, of which
stay 0.8 for the catalogue, 0.4 for the relevance model, 0.2 for the engine, 1.0 for the judge and up to 1.6 for the table of
matches. The rest is for all else that the machine does.
"""

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class TooManyDocumentsError(ValueError):
    """More documents than the embedded ranker can hold."""


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or its container's where that is less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            found.append(int(path.read_text("ascii")))
    return min(found)


def check_embedded(documents: int, memory: int | None = None) -> None:
    """Refuse more documents than fit.

    Args:
        documents: How many there are.
        memory: Bytes of the machine; None: `memory_bytes()`.

    Raises:
        TooManyDocumentsError: they are more than one for each `BYTES_PER_DOCUMENT`.
    """
    memory = memory or memory_bytes()
    limit = memory // BYTES_PER_DOCUMENT
    if documents > limit:
        raise TooManyDocumentsError(
            f"{documents:,} documents are over the embedded engine's limit of {limit:,}, one for each "
            f"{BYTES_PER_DOCUMENT // 1024} KiB of the {memory / 2**30:.1f} GiB of memory: use "
            "ranker.recall: {kind: opensearch, vector_field: null} or another engine of yours, and a kind that is not embedded "
            "or clip for the signals relevance and dense"
        )


def build_pictures(catalogue: Catalogue) -> npt.NDArray[np.float32]:
    """`catalogue.visual`, of every document.

    Raises:
        ValueError: a document has none; it is named.
    """
    missing = np.flatnonzero(np.isnan(catalogue.visual).any(1))
    if len(missing):
        raise ValueError(
            f"document {catalogue.ids[missing[0]]!r} has no picture, nor have {len(missing) - 1} others of {len(catalogue)}: "
            "the bundled relevance model needs the column visual for every document, or not at all"
        )
    return catalogue.visual
