"""Open the documents where the ranker needs them: in memory for what is embedded, else on disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Documents
from corewrite.domain.steps import Steps
from corewrite.search.document_store import DocumentStore, Progress
from corewrite.search.documents import read_catalogue


def open_documents(path: Path, ranker: RankerSettings, steps: Steps | None = None) -> Documents:
    """The documents of a Parquet file, or of a folder of them.

    Args:
        path: See `read_catalogue` for the columns.
        ranker: What ranks them.
        steps: Shows the progress of documents on disk, which are converted when they are new: minutes for ten million.

    Raises:
        DocumentsError: they cannot be read, or hold an unusable value.
        TooManyDocumentsError: the ranker is embedded, and they are more than fit in memory.
        OSError: they cannot be converted where they are.
    """
    if ranker.needs_documents_in_memory:
        return read_catalogue(path)
    with _shown(steps) as progress:
        return DocumentStore.open(path, progress=progress)


@contextmanager
def _shown(steps: Steps | None) -> Iterator[Progress]:
    if steps is None:
        yield lambda done, total: None
    else:
        with steps.step("open the documents") as progress:
            yield progress
