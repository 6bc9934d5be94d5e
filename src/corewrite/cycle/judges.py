"""From the settings of the judge to the judge."""

from corewrite.cycle.candidate_config import JudgeConfig, PythonJudgeConfig, TreeJudgeConfig
from corewrite.domain import Documents
from corewrite.domain.plugins import JUDGES, load_factory, load_plugin
from corewrite.relevance import Judge, TreeJudge


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
