"""Incidents of the fusion spec."""

from corewrite.fusion import FusionSpec
from corewrite.studies.incidents.incident import BranchPoint, Incident, Injection


def low_floor(spec: FusionSpec, eps: float = 1e-5, bound: float = 16.0) -> FusionSpec:
    """The spec with a floor that pays for moving documents nobody would ever see, and bounds to match.

    Args:
        spec: To change.
        eps: Floor of the rewrite signals.
        bound: Each rewrite factor lies within [1 / bound, bound], before its exponent. Within the bounds of the packaged spec
            the exploit is learnt all the same but costs half as much.
    """
    return _with_rewrite(spec, {"eps": eps, "lo": 1 / bound, "hi": bound})


def wide_clip(spec: FusionSpec, bound: float) -> FusionSpec:
    """The spec with other bounds on the rewrite factors: each lies within [1 / bound, bound], before its exponent.

    Args:
        spec: To change; under its floor of 0.03 no factor is beyond 34.
        bound: The packaged spec's is 4.
    """
    return _with_rewrite(spec, {"lo": 1 / bound, "hi": bound})


def _with_rewrite(spec: FusionSpec, change: dict[str, float]) -> FusionSpec:
    value = spec.model_dump(mode="json")
    for stage in ("rawrank", "finerank"):
        for signal in value[stage]["rewrite"]:
            signal |= change
    return type(spec).model_validate(value)


def _loses_the_floor(strength: float, point: BranchPoint) -> Injection:
    return Injection(spec=lambda spec: low_floor(spec, eps=1e-6, bound=strength))


def _loses_the_clip(strength: float, point: BranchPoint) -> Injection:
    return Injection(spec=lambda spec: wide_clip(spec, strength))


SPEC_INCIDENTS = (
    Incident(
        "lost-floor",
        "learned hack",
        "the fusion spec comes with a floor so low that moving documents pays which nobody would ever see",
        (16.0, 256.0, 4096.0),
        "bound of a rewrite factor",
        None,
        True,
        _loses_the_floor,
    ),
    Incident(
        "lost-clip",
        "learned hack",
        "the fusion spec comes with bounds so wide that they bound nothing",
        (16.0, 64.0),
        "bound of a rewrite factor",
        None,
        True,
        _loses_the_clip,
    ),
)
