"""The status of every rewrite signal of a search."""

from dataclasses import replace

from corewrite.domain import SignalStatus
from corewrite.fusion import FusionSpec
from corewrite.serving.rewriting import RewriterAnswer
from corewrite.serving.search_result import Ranked


def with_signal_status(
    ranked: Ranked,
    spec: FusionSpec,
    *,
    stages: tuple[str, ...],
    used_at: tuple[str, ...],
    rewritten: RewriterAnswer | None,
    asked: bool,
    missing: tuple[str, ...],
) -> Ranked:
    """Give every rewrite signal of the spec a status, also where the rewrite never reached the stage.

    Args:
        ranked: The answer, with the status of what was scored.
        spec: Names the signals.
        stages: The stages that may use the rewrite.
        used_at: Those that had it.
        rewritten: The rewriter's answer; None where there is none, or none in time.
        asked: Whether the rewriter was asked.
        missing: The stages that did not end.
    """
    if rewritten is not None:
        absent = rewritten.status if not rewritten.texts else SignalStatus.TIMEOUT
    else:
        absent = SignalStatus.TIMEOUT if asked else SignalStatus.OFF
    status: dict[str, SignalStatus] = {}
    names = {stage: [j.signal for j in spec.stages[stage].rewrite] for stage in spec.stages}
    if spec.recall.use_rewrite:
        names = {"recall": ["candidates"], **names}
    for stage, signals in names.items():
        for signal in signals:
            name = f"{stage}.{signal}"
            if stage not in stages:
                status[name] = SignalStatus.OFF
            elif stage in missing:
                status[name] = SignalStatus.ERROR
            elif stage in used_at:
                state = ranked.status.get(name, SignalStatus.OK)
                # The rewrite is the query itself: it was there, and has nothing to say.
                status[name] = SignalStatus.NEUTRAL if state == SignalStatus.OFF else state
            else:
                status[name] = absent
    status |= {name: state for name, state in ranked.status.items() if name.endswith(".original")}
    return replace(ranked, status=status)
