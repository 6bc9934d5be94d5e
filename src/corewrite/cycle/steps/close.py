"""The end of a week: its record, and what is forgotten."""

import shutil

from corewrite.cycle.context import CycleContext
from corewrite.cycle.records import RECORD, WeekRecord
from corewrite.cycle.steps.validate_ranker import ValidatedRanker
from corewrite.gate import Verdict


def hold_without_ranker(cycle: CycleContext, ranker: ValidatedRanker) -> WeekRecord:
    """Close the week with a HOLD: neither may the new relevance model be used nor does the present one answer.

    Args:
        cycle: The cycle, with a champion.
        ranker: What is not usable.
    """
    champion = cycle.champion
    assert champion is not None
    return cycle.journal.once(
        RECORD,
        lambda: {
            "week": cycle.week,
            "verdict": Verdict.HOLD,
            "reason": f"there is no ranker to train on: {ranker.alarms[-1]}",
            "failed": [],
            "mitigations": [],
            "mitigations_applied": cycle.plan["mitigations"],
            "candidate": champion.policy,
            "relevance": ranker.relevance,
            "spec": ranker.spec,
            "relevance_fitted": False,
            "alarms": list(ranker.alarms),
            "recovered": False,
            "traffic": summarise_traffic(cycle),
            "labels": cycle.labels,
            "provenance": {},
            "policy": champion.policy,
        },
    )


def close_week(cycle: CycleContext, record: WeekRecord) -> WeekRecord:
    """Write the record, which finishes the week, and remove what was mined of weeks that are over.

    Args:
        cycle: The cycle.
        record: How the week ended.
    """
    found = cycle.journal.once(RECORD, lambda: record)
    keep = cycle.config.privacy.retention_weeks
    if keep is not None:  # it holds users' texts as they were typed
        names = [name for name in cycle.weeks if name <= cycle.week]
        for name in names[: max(0, len(names) - keep)]:
            shutil.rmtree(cycle.layout.window(name), ignore_errors=True)
            cycle.layout.reject_file(name).unlink(missing_ok=True)
    return found


def summarise_traffic(cycle: CycleContext) -> dict[str, dict[str, float]]:
    """How the week's searches ended, of users with and without a rewriter: shares, and the number of searches."""
    return {
        name: {k: n / counts.total() for k, n in sorted(counts.items())} | {"searches": counts.total()}
        for name, counts in cycle.window(cycle.week).endings().items()
        if counts
    }
