"""Read the week's log, and what it lacks of the weeks before."""

from corewrite.cycle.context import CycleContext
from corewrite.cycle.mined_week import MinedWindow, first_thresholds, freeze, mine_week
from corewrite.cycle.records import MINE
from corewrite.search import top_overlap


def mine(cycle: CycleContext) -> MinedWindow:
    """Mine this week, and those before it that the relevance model needs; the first cycle freezes the evaluation set.

    Args:
        cycle: The cycle.

    Returns:
        What this week's log gave.
    """
    names = [*cycle.weeks_before, cycle.week]
    with cycle.steps.step(f"{cycle.week}: read and mine the log"):
        overlap = top_overlap((cycle.present_ranker.deployment or cycle.configured_ranker).cascade)
        thresholds = None
        for name in names:
            window = mine_week(
                cycle.weeks[name],
                cycle.documents,
                cycle.layout.window(name),
                overlap=overlap,
                thresholds=thresholds or first_thresholds(cycle.config.run),
                seed=cycle.config.seed,
                rejects=cycle.layout.reject_file(name),
                unseal=cycle.unseal,
            )
            thresholds = thresholds or window.thresholds
    cycle.journal.once(MINE, lambda: {"windows": names, **window.about})
    if not cycle.config.frozen.is_file():
        freeze(cycle.window(names[0]).for_gate(cycle.config.frozen_queries), cycle.config.frozen)
    return cycle.window(cycle.week)
