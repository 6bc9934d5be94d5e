"""The searches of a mined week that candidates are compared on, in a cycle, in a gate by itself and in the gate's benchmark."""

from collections.abc import Sequence

from corewrite.domain import Catalogue, TrainingInstance
from corewrite.evaluation.searches import GateSearches
from corewrite.pipeline.mined import MinedWindow, frequencies, with_documents


def gate_searches(
    windows: Sequence[MinedWindow], catalogue: Catalogue, frozen: Sequence[TrainingInstance], *, limit: int
) -> GateSearches:
    """Searches of the last of some weeks.

    Args:
        windows: The week, after those before it that were mined with it.
        catalogue: The documents; what only others satisfied is left out.
        frozen: Of the set that never changes.
        limit: Fresh searches at most.
    """
    week = windows[-1]
    frequency, before = frequencies(windows)
    return GateSearches(
        with_documents(week.for_gate(limit), catalogue), frequency, with_documents(frozen, catalogue), before,
        week.gate_repairs(),
    )  # fmt: skip
