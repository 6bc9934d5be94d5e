"""From the settings of the judge to the judge, and to one that is fitted on raters' labels."""

from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter

from corewrite.cycle.candidate_config import JudgeConfig, PythonJudgeConfig, TreeJudgeConfig
from corewrite.cycle.catalogue_files import read_catalogue, read_labels
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Documents
from corewrite.domain.plugins import JUDGES, load_factory, load_plugin
from corewrite.relevance import Judge, TreeJudge
from corewrite.search.document_store import DocumentStore


def build_judge(settings: JudgeConfig, documents: Documents) -> Judge:
    """The judge of the settings, not fitted yet.

    Args:
        settings: Which judge.
        documents: What it grades.

    Raises:
        ValueError: a function or entry point cannot be imported, or what it gives is no judge.
    """
    if isinstance(settings, TreeJudgeConfig):
        return TreeJudge(documents)
    made = load_factory(settings.factory) if isinstance(settings, PythonJudgeConfig) else load_plugin(JUDGES, settings.kind)
    judge = made(documents, **settings.options)
    missing = [name for name in ("fit", "grade", "ndcg10") if not callable(getattr(judge, name, None))]
    if missing:
        raise ValueError(
            f"judge {settings.kind!r}: a {type(judge).__name__} has no {missing[0]}: derive it from corewrite.relevance.Judge"
        )
    return judge  # type: ignore[no-any-return]


def fitted_judge(
    labels: Path,
    documents: Path,
    seed: int,
    ranker: RankerSettings = RankerSettings(),
    judge: JudgeConfig = TreeJudgeConfig(),
    *,
    first: int | None = None,
) -> Judge:
    """The judge of a labels file (no folder); fitted once a process, and again when raters have added to the file.

    Args:
        labels: See `read_labels`.
        documents: See `open_documents`.
        seed: The one seed.
        ranker: Says whether the documents are in memory.
        judge: Which judge.
        first: Learn from so many labels of the file, those that were there first; None: all.
    """
    written = labels.stat().st_mtime_ns if labels.is_file() else 0
    return _fitted_judge(labels, documents, seed, written, ranker.needs_documents_in_memory, judge.model_dump_json(), first)


_JUDGE: TypeAdapter[JudgeConfig] = TypeAdapter(JudgeConfig)


@lru_cache(maxsize=1)
def _fitted_judge(
    labels: Path, path: Path, seed: int, written: int, in_memory: bool, settings: str, first: int | None
) -> Judge:
    documents: Documents = read_catalogue(path) if in_memory else DocumentStore.open(path)
    judge = build_judge(_JUDGE.validate_json(settings), documents)
    judge.fit(read_labels(labels, documents, first=first), seed=seed)
    return judge
