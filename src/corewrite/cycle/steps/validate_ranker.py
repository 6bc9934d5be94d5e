"""Whether a new relevance model and spec may rank and reward: they pay for no adversarial rewrite, and the champion holds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

from corewrite.cycle.context import CycleContext
from corewrite.cycle.decision_log import VALIDATE_RANKER, decide_once, quarantine_refused
from corewrite.cycle.mined_week import MinedWindow, with_documents
from corewrite.cycle.records import PROBE, RELEVANCE, ProbeRecord, RankerHashes, as_json
from corewrite.cycle.steps.champion_holds import champion_holds
from corewrite.cycle.steps.rollout import carry_rollout, rollout_lock
from corewrite.cycle.weeks import CycleError
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.random_pairs import random_pairs
from corewrite.registry import JSON, Candidate, ConflictError, Decision
from corewrite.relevance import probe
from corewrite.training import retried

_KINDS: tuple[Literal["relevance"], Literal["spec"]] = ("relevance", "spec")


@dataclass(frozen=True)
class ValidatedRanker(RankerHashes):
    """What the week ranks and rewards under.

    Attributes:
        champion: Version of the champion under it, which the candidate is compared with; None where there is none.
        usable: Whether there is a ranker at all: what was proposed is not refused while the champion's is gone.
        alarms: What to know of it.
    """

    champion: int | None
    usable: bool
    alarms: tuple[str, ...]


def validate_ranker(cycle: CycleContext, window: MinedWindow, proposed: RankerHashes) -> ValidatedRanker:
    """Put a new relevance model or spec under the champion where probe and champion allow it, else into quarantine.

    Args:
        cycle: The cycle.
        window: The mined week.
        proposed: What the week's refresh gave.

    Raises:
        CycleError: the first relevance model fails its probe, or the champion was changed meanwhile.
    """
    champion = cycle.champion
    with cycle.steps.step("probe, validate the champion"):
        probed = cycle.journal.once(PROBE, lambda: probe_ranker(cycle, window, proposed))
    version = None if champion is None else champion.version
    if champion is not None and probed["changed"] and probed["accepted"]:
        version = _promote_under(
            cycle, Candidate(champion.policy, probed["relevance"], probed["spec"]), champion.version
        ).number
    elif not probed["accepted"]:
        quarantine_ranker(cycle, probed)
    usable = probed["accepted"] or not probed.get("gone")
    return ValidatedRanker(probed["relevance"], probed["spec"], version, usable, tuple(probed["alarms"]))


def probe_ranker(cycle: CycleContext, window: MinedWindow, proposed: RankerHashes) -> ProbeRecord:
    """Probe what is proposed, and compare the champion's lists under it with those under the present one.

    Args:
        cycle: The cycle.
        window: The mined week.
        proposed: Relevance model and spec.

    Raises:
        CycleError: it fails, and there is no champion whose ranker could stay.
    """
    champion, spec = cycle.champion, proposed.spec
    unfitted = cycle.journal.result(RELEVANCE).get("alarm")
    alarms: list[str] = [unfitted] if unfitted else []
    if champion is not None and spec in cycle.quarantined("spec"):
        alarms.append(f"spec {spec[:12]} is quarantined: the champion's stays")
        spec = champion.spec
    gone = "" if champion is None else cycle.present_ranker.gone
    if gone:
        alarms.append(gone)
    if champion is not None and (proposed.relevance, spec) == (champion.relevance, champion.spec):
        # The champion's own, and the settings' was refused already where it is gone.
        return {
            "relevance": proposed.relevance,
            "spec": spec,
            "changed": False,
            "accepted": not gone,
            "gone": bool(gone),
            "alarms": alarms,
        }
    found, problems = _ranker_problems(cycle, window, cycle.deployment(proposed.relevance, spec), alarms)
    if not problems:
        return {
            "relevance": proposed.relevance,
            "spec": spec,
            "changed": True,
            "accepted": True,
            "alarms": alarms,
            **found,
        }
    if champion is None:
        raise CycleError(
            f"the first relevance model fails its probe: {'; '.join(problems)}: raise eps in the fusion spec or bring more "
            f"log, and remove {cycle.journal.folder} to begin anew"
        )
    alarms.append(f"the new relevance model or spec is not used, the champion's stays: {'; '.join(problems)}")
    return {
        "relevance": champion.relevance,
        "spec": champion.spec,
        "changed": True,
        "accepted": False,
        "gone": bool(gone),
        "refused": {"relevance": proposed.relevance, "spec": spec},
        "alarms": alarms,
        **found,
    }


def _ranker_problems(
    cycle: CycleContext, window: MinedWindow, deployment: Deployment, alarms: list[str]
) -> tuple[ProbeRecord, Sequence[str]]:
    """What was found of a new ranker, and what speaks against it; advice on its floors is added to `alarms`."""
    champion, pipeline = cycle.champion, cycle.config.pipeline
    instances = with_documents(window.instances(), cycle.documents)[: pipeline.probe_instances]
    found: ProbeRecord = {}
    try:
        probed = probe(instances, retried(deployment.reward, pipeline.training.scoring))
        found["probe"], problems = asdict(probed), cycle.promotion.probe_problems(probed)
        pairs = random_pairs(deployment, [x.query.text for x in instances], seed=cycle.config.seed)
        found["random_pairs"] = [asdict(x) for x in pairs]
        alarms += [x.advice for x in pairs if x.advice]
    except ValueError as error:  # it scores what is no number, or there is nothing to probe with
        if champion is None:
            raise
        problems = [str(error)]
    if champion is None or problems:
        return found, problems

    def validate() -> list[str]:
        return champion_holds(
            cycle.policy(champion.policy),
            with_documents(window.for_gate(pipeline.gate_queries), cycle.documents),
            cycle.present_ranker.deployment,
            deployment,
            cycle.judge,
            cycle.config.gate,
            max_new_tokens=pipeline.max_new_tokens,
        )

    return found, cycle.promotion.champion_problems(validate)


def _promote_under(cycle: CycleContext, triple: Candidate, expected: int) -> Decision:
    """Promote the champion's policy under a new relevance model or spec."""
    probed = cycle.journal.result(PROBE)

    def promote(evidence: dict[str, JSON]) -> Decision:
        return cycle.registry.promote(
            triple,
            expected=expected,
            evidence={**evidence, "probe": as_json(probed)},
            reason="the champion holds under the new relevance model or spec",
        )

    try:
        with rollout_lock(cycle.config.run):
            promoted = decide_once(cycle, VALIDATE_RANKER, promote)
            carry_rollout(cycle.config.run, promoted)
            return promoted
    except ConflictError as error:
        raise CycleError(
            f"the champion was changed under the cycle of {cycle.week!r} ({error}): remove {cycle.journal.folder} to "
            "begin anew from the present one"
        ) from error


def quarantine_ranker(cycle: CycleContext, probed: ProbeRecord) -> None:
    """Quarantine what was refused, unless the champion itself runs on it.

    Args:
        cycle: The cycle, with a champion.
        probed: What the probe wrote down.
    """
    champion = cycle.champion
    assert champion is not None
    refused = probed.get("refused") or {"relevance": probed["relevance"], "spec": probed["spec"]}
    why = probed["alarms"][-1]
    for kind in _KINDS:
        hash = refused[kind]
        if hash != champion.hashes[kind]:
            decide_once(cycle, quarantine_refused(kind), partial(cycle.registry.quarantine, kind, hash, why))
