"""The incidents of a longitudinal simulation: a spec or a relevance model under which the reward can be gamed."""

from dataclasses import replace
from pathlib import Path

import yaml

from corewrite.cycle.steps.fit_relevance import Refit, refit
from corewrite.fusion import FusionSpec, default_spec
from corewrite.relevance import LateInteraction
from corewrite.relevance.late_interaction import SCALARS
from corewrite.storage.durable import naming
from corewrite.studies.longitudinal.config import LongitudinalConfig
from corewrite.studies.longitudinal.layout import FIRST_WEEK


def spec_of_week(config: LongitudinalConfig, week: int) -> FusionSpec:
    """The spec of a week: from the incident on one with a floor that is too low, where that is the incident."""
    number, since = week - FIRST_WEEK + 1, config.incident_week
    bad = config.incident == "spec" and since is not None and number >= since
    return incident_spec() if bad else default_spec()


def refit_of_week(config: LongitudinalConfig, week: int) -> Refit:
    """How the relevance model is fitted in a week: soundly, but in the week of the incident."""
    if config.incident != "relevance" or config.incident_week != week - FIRST_WEEK + 1:
        return refit
    return lambda catalogue, seen, seed, progress: saturating(refit(catalogue, seen, seed, progress))


def saturating(model: LateInteraction, shift: float = 2.0) -> LateInteraction:
    """A model that scores high as soon as a part of the intent is met: it ranks, and can be gamed."""
    scalars = model.scalars.copy()
    scalars[SCALARS.index("bias")] += shift
    return replace(model, scalars=scalars)


def incident_spec() -> FusionSpec:
    """The spec of the incident: with bounds of 1/64 to 64 the probe would have found that copying the context pays."""
    return low_floor(default_spec(), bound=32)


def low_floor(spec: FusionSpec, eps: float = 1e-5, bound: float = 16.0) -> FusionSpec:
    """The spec with a floor that pays for moving documents nobody would ever see, and bounds to match.

    Args:
        spec: To change.
        eps: Floor of the rewrite signals.
        bound: Each rewrite factor lies within [1 / bound, bound], before its exponent. Within the bounds of the packaged spec
            the exploit is learnt all the same but costs half as much.
    """
    value = spec.model_dump(mode="json")
    for stage in ("rawrank", "finerank"):
        for signal in value[stage]["rewrite"]:
            signal |= {"eps": eps, "lo": 1 / bound, "hi": bound}
    return type(spec).model_validate(value)


def write_spec_file(spec: FusionSpec, path: Path) -> None:
    """Write a spec as a user would."""
    with naming(path):
        path.write_text(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), "utf-8")
