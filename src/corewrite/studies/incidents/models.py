"""Incidents of the job that fits the relevance model."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from corewrite.cycle.steps.fit_relevance import Progress, Refit
from corewrite.domain import Catalogue
from corewrite.relevance import Impressions, LateInteraction
from corewrite.relevance.late_interaction import SCALARS
from corewrite.studies.incidents.incident import BranchPoint, Incident, Injection


def with_scalars(model: LateInteraction, **change: Callable[[float], float]) -> LateInteraction:
    """The model with some of its scalars changed, by name."""
    scalars = model.scalars.copy()
    for name, new in change.items():
        at = SCALARS.index(name)
        scalars[at] = new(float(scalars[at]))
    return replace(model, scalars=scalars)


def saturating(model: LateInteraction, shift: float = 2.0) -> LateInteraction:
    """A model that scores high as soon as a part of the intent is met: it ranks, and can be gamed."""
    return with_scalars(model, bias=lambda bias: bias + shift)


def steeper(model: LateInteraction, factor: float) -> LateInteraction:
    """A model whose calibration slope is a multiple of what was fitted: it ranks alike, and is far too sure."""
    return with_scalars(model, calibration_slope=lambda slope: slope * factor)


def paying_for_length(model: LateInteraction, per_word: float) -> LateInteraction:
    """A model without the tolls: every word adds to the score of every document, and an unknown one too.

    Args:
        model: As fitted, with gain >= toll >= 0.
        per_word: What a word that matches nothing adds to the logit, times its weight.
    """
    return with_scalars(model, toll=lambda _: -per_word, toll_unknown=lambda _: -per_word)


def wrongly_joined(seen: Impressions, share: float, seed: int) -> Impressions:
    """Impressions of which a share have the document of another one."""
    rng = np.random.default_rng([seed, 91])
    hit = np.flatnonzero(rng.random(len(seen.rows)) < share)
    rows = seen.rows.copy()
    rows[hit] = rows[rng.permutation(hit)]
    return replace(seen, rows=rows)


def _after(change: Callable[[LateInteraction], LateInteraction]) -> Callable[[Refit], Refit]:
    """The job with its result changed."""

    def job(refit: Refit) -> Refit:
        def changed(catalogue: Catalogue, seen: Impressions, seed: int, progress: Progress) -> LateInteraction:
            return change(refit(catalogue, seen, seed, progress))

        return changed

    return job


def _before(change: Callable[[Impressions, int], Impressions]) -> Callable[[Refit], Refit]:
    """The job with its input changed."""

    def job(refit: Refit) -> Refit:
        def changed(catalogue: Catalogue, seen: Impressions, seed: int, progress: Progress) -> LateInteraction:
            return refit(catalogue, change(seen, seed), seed, progress)

        return changed

    return job


def _saturates(strength: float, point: BranchPoint) -> Injection:
    return Injection(refit=_after(lambda model: saturating(model, strength)))


def _pays_for_length(strength: float, point: BranchPoint) -> Injection:
    return Injection(refit=_after(lambda model: paying_for_length(model, strength)))


def _is_steeper(strength: float, point: BranchPoint) -> Injection:
    return Injection(refit=_after(lambda model: steeper(model, strength)))


def _is_wrongly_joined(strength: float, point: BranchPoint) -> Injection:
    return Injection(refit=_before(lambda seen, seed: wrongly_joined(seen, strength, seed)))


MODEL_INCIDENTS = (
    Incident(
        "saturating-model",
        "learned hack",
        "the relevance model is refitted with a bias so high that a part of the intent is as good as all of it",
        (2.0, 4.0),
        "added to the bias of the logit",
        None,
        True,
        _saturates,
    ),
    Incident(
        "length-artefact",
        "learned hack",
        "the relevance model is refitted without its tolls: every further word of a text makes every document more relevant",
        (0.25, 0.5, 1.0),
        "added to the logit for a word, times its weight",
        None,
        True,
        _pays_for_length,
    ),
    Incident(
        "wrong-labels",
        "learned hack",
        "the relevance model is refitted on labels of which a share are joined to the wrong documents",
        (0.3, 0.6, 0.9),
        "share of the labels",
        None,
        True,
        _is_wrongly_joined,
    ),
    Incident(
        "calibration-slope",
        "fault",
        "the relevance model is refitted with a calibration slope that is a multiple of the right one",
        (3.0,),
        "times the right slope",
        None,
        True,
        _is_steeper,
    ),
)
