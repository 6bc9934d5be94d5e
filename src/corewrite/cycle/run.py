"""One week: mine, refresh and validate the ranker, train from the champion, gate, decide, recover.

Every step's result is a file of the cycle's journal; what it makes is an artifact of the registry or a mined window. A cycle
that was killed goes on where it was, and ends as one that was not.
"""

from corewrite.cycle.begin import begin_cycle
from corewrite.cycle.config import CycleConfig
from corewrite.cycle.parts import CycleParts
from corewrite.cycle.promotion import GatedPromotion, PromotionPolicy
from corewrite.cycle.records import RECORD, WeekRecord
from corewrite.cycle.steps.close import hold_without_ranker
from corewrite.cycle.steps.decide import decide_candidate
from corewrite.cycle.steps.fit_relevance import Refit, refit
from corewrite.cycle.steps.gate import gate_candidate
from corewrite.cycle.steps.mine import mine
from corewrite.cycle.steps.recover import recover
from corewrite.cycle.steps.refresh import refresh_ranker
from corewrite.cycle.steps.train import train_candidate
from corewrite.cycle.steps.validate_ranker import validate_ranker
from corewrite.deployment.run_folder import note_documents
from corewrite.domain.steps import Steps
from corewrite.relevance.pair_sample import Raters
from corewrite.storage.journal import cycle_lock
from corewrite.training.threads import with_threads


def run_cycle(
    config: CycleConfig,
    week: str | None = None,
    *,
    steps: Steps,
    refit: Refit = refit,
    promotion: PromotionPolicy = GatedPromotion(),
    raters: Raters | None = None,
    parts: CycleParts = CycleParts(),
) -> WeekRecord:
    """Run the cycle of a week, or go on with it.

    Args:
        config: Settings.
        week: Name of its log; None: the newest.
        steps: Shows progress.
        refit: Fits the relevance model.
        promotion: Who has the last word; default: the gate.
        raters: Who grades the pairs that `pipeline.pairs_to_grade` asks for; default: a team's own, by way of files.
        parts: Parts of the cycle that a study puts in the place of the real ones.

    Returns:
        The week's record: verdict, reason, what is in production after it, alarms, provenance.

    Raises:
        CycleRunningError: another cycle is at work.
        CycleError: no log, a week out of turn, or too little data.
        GradesAwaitedError: the week waits for raters; run again, it goes on.
        JournalError: the cycle began under other settings.
    """
    with cycle_lock(config.run):
        note_documents(config.run, config.documents)
        cycle = begin_cycle(config, week, steps=steps, refit=refit, promotion=promotion, raters=raters, parts=parts)
        if (finished := cycle.journal.read(RECORD)) is not None:
            return finished
        with with_threads(cycle.plan.get("threads")):  # versions before did not write it down
            window = mine(cycle)
            proposed = refresh_ranker(cycle)
            ranker = validate_ranker(cycle, window, proposed)
            if not ranker.usable:
                return hold_without_ranker(cycle, ranker)
            candidate = train_candidate(cycle, window, ranker)
            gate = gate_candidate(cycle, candidate, ranker)
            decided = decide_candidate(cycle, candidate, ranker, gate)
            return recover(cycle, candidate, ranker, gate, decided)
