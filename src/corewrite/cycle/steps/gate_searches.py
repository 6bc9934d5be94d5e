"""The searches of a mined week that candidates are compared on, in a cycle, in a gate by itself and in the gate's benchmark."""

from collections.abc import Sequence

from corewrite.cycle.mined_week import MinedWindow, frequencies, with_documents
from corewrite.domain import Documents, TrainingInstance
from corewrite.domain.filters import NO_FILTERS, RewriteFilters
from corewrite.evaluation.protected_words import find_protected_words
from corewrite.evaluation.searches import GateSearches


def gate_searches(
    windows: Sequence[MinedWindow],
    documents: Documents,
    frozen: Sequence[TrainingInstance],
    *,
    limit: int,
    seed: int,
    filters: RewriteFilters = NO_FILTERS,
) -> GateSearches:
    """Searches of the last of some weeks.

    Args:
        windows: The week, after those before it that were mined with it.
        documents: Those that exist; what only others satisfied is left out.
        frozen: Of the set that never changes.
        limit: Fresh searches at most.
        seed: The one seed.
        filters: What no rewrite may bring in.
    """
    week = windows[-1]
    frequency, before = frequencies(windows)
    return GateSearches(
        with_documents(week.for_gate(limit), documents),
        frequency,
        with_documents(frozen, documents),
        before,
        week.gate_repairs(),
        protected_words(windows, documents, seed),
        filters,
    )


def protected_words(windows: Sequence[MinedWindow], documents: Documents, seed: int) -> frozenset[str]:
    """Words that a rewrite should not drop, in the training of some mined weeks as in their gate."""
    return find_protected_words([x for w in windows for x in w.instances()], documents, seed=seed)
