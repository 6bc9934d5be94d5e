"""The relevance model and fusion spec that a week proposes."""

from collections.abc import Callable

from corewrite.cycle.context import CycleContext
from corewrite.cycle.mined_week import build_impressions
from corewrite.cycle.records import RELEVANCE, SPEC, RankerHashes, RelevanceRecord
from corewrite.cycle.spec_file import write_spec
from corewrite.deployment.open import load_embedder
from corewrite.fusion import default_spec, load_spec
from corewrite.registry import JSON
from corewrite.search.document_store import in_memory
from corewrite.version import VERSION


def refresh_ranker(cycle: CycleContext) -> RankerHashes:
    """Fit the bundled relevance model where it is due, and take in what the settings name that is not ours, and the spec.

    Args:
        cycle: The cycle, its weeks mined.

    Returns:
        What is to be validated; the champion's own where nothing is new.
    """
    with cycle.steps.step("relevance model and spec") as progress:
        relevance = cycle.journal.once(RELEVANCE, lambda: refresh_relevance(cycle, progress))
        spec = cycle.journal.once(SPEC, lambda: {"spec": _save_spec(cycle)})
    return RankerHashes(relevance["relevance"], spec["spec"])


def refresh_relevance(cycle: CycleContext, progress: Callable[[int, int], None]) -> RelevanceRecord:
    """Fit the bundled model where it is due, and open what the settings name; what cannot be used leaves the champion's.

    Args:
        cycle: The cycle, its weeks mined.
        progress: Called with (steps done, steps in all).

    Raises:
        ValueError: the first one cannot be fitted or opened.
    """
    champion, opener = cycle.champion, cycle.opener
    folder = None if champion is None else cycle.registry.path(cycle.registry.artifact("relevance", champion.relevance))
    named_otherwise = folder is not None and not opener.is_current(folder)
    kept = folder is not None and not named_otherwise
    needed = opener.settings.needs_embedder
    if champion is not None and kept and not (needed and cycle.plan["relevance_due"]):
        return {"relevance": champion.relevance, "fitted": False}
    model = load_embedder(folder) if folder is not None else None
    fitted, before, alarm = False, cycle.weeks_before, ""
    if needed and (model is None or cycle.plan["relevance_due"]):
        seen = build_impressions([cycle.window(name) for name in before], cycle.documents)
        try:
            model, fitted = cycle.refit(in_memory(cycle.documents), seen, cycle.config.seed, progress), True
        except ValueError as error:
            alarm = f"the relevance model could not be fitted, the champion's stays: {error}"
            if champion is None:
                raise
            if kept or model is None:
                return {"relevance": champion.relevance, "fitted": False, "alarm": alarm}
    try:
        ranker = opener.build(model if needed else None)
    except (OSError, ValueError) as error:  # it does not answer, is not what is pinned, or gives two answers
        if champion is None:
            raise
        alarm = f"the ranker that the settings name cannot be used, the champion's stays: {error}"
        return {"relevance": champion.relevance, "fitted": False, "alarm": alarm, "refused": True}
    pins = ranker.about.get("pins")
    if champion is not None and named_otherwise and pins is not None and pins in _quarantined_pins(cycle):
        alarm = "the ranker that the settings name is quarantined, the champion's stays: give a changed one a new version"
        return {"relevance": champion.relevance, "fitted": False, "alarm": alarm, "refused": True}
    about: dict[str, JSON] = {**ranker.about, "code_version": VERSION, "seed": cycle.config.seed}
    if fitted:
        about["weeks"] = before
    found: RelevanceRecord = {"relevance": cycle.registry.save("relevance", ranker.save, about).hash, "fitted": fitted}
    if fitted:
        found["weeks"] = before
    if alarm:
        found["alarm"] = alarm
    return found


def _quarantined_pins(cycle: CycleContext) -> set[JSON]:
    """Rankers that are not ours and were quarantined, under whatever bundled model beside them."""
    quarantined = cycle.quarantined("relevance")
    return {a.metadata.get("pins") for a in cycle.registry.artifacts() if a.kind == "relevance" and a.hash in quarantined}


def _save_spec(cycle: CycleContext) -> str:
    path = cycle.config.ranker.spec or cycle.config.spec
    spec = default_spec() if path is None else load_spec(path)
    return cycle.registry.save("spec", lambda folder: write_spec(folder, spec), {"spec_hash": spec.spec_hash}).hash
