"""Where an engine finds a signal, and what an engine cannot hold."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from corewrite.fusion.program import Program, Signal, log_range
from corewrite.fusion.spec import FusionSpec

# Natural logs of the smallest normal and the largest number.
FLOAT_RANGE = (-87.33, 88.72)
DOUBLE_RANGE = (-708.39, 709.78)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class CompileError(ValueError):
    """A spec that an engine cannot hold, or a feature that no signal asks for; the message names the value and the fix."""


@dataclass(frozen=True)
class Features:
    """Features of the engine by signal; those that are not named come from where the target says.

    Attributes:
        given: Feature by `query.NAME` or `rewrite.NAME`, in the engine's own language.
    """

    given: Mapping[str, str]

    def of(self, signal: Signal) -> str | None:
        """The feature of a signal, None where none was named."""
        return self.given.get(f"{signal.side}.{signal.name}")


def checked_features(stages: Mapping[str, Program], given: Mapping[str, str], prior: str) -> Features:
    """Features with the engine's `prior`, a number stored with the document as in the embedded cascade, filled in.

    Raises:
        CompileError: a name that no signal of the spec has, or a signal whose name is no identifier.
    """
    wanted = {f"{s.side}.{s.name}": s.name for p in stages.values() for s in p.signals}
    unknown = sorted(set(given) - set(wanted))
    if unknown:
        raise CompileError(f"no signal {unknown[0]!r} in the fusion spec: there are {', '.join(sorted(wanted))}")
    bad = sorted(n for n in wanted.values() if not _NAME.fullmatch(n))
    if bad:
        raise CompileError(f"signal {bad[0]!r} must be letters, digits and _ to be a name in an engine: rename it in the spec")
    # The embedded cascade, too, takes `prior` from the document.
    return Features({"query.prior": prior} | dict(given))


def check_range(spec: FusionSpec, engine: str, limits: tuple[float, float]) -> None:
    """Refuse a spec whose scores an engine would round to nothing or to infinity.

    Args:
        spec: The spec.
        engine: Its name, for the message.
        limits: Natural logs of the smallest and the largest score it holds.

    Raises:
        CompileError: some stage's score could leave the limits.
    """
    for name, stage in spec.stages.items():
        low, high = log_range(stage)
        if low < limits[0] or high > limits[1]:
            raise CompileError(
                f"scores of stage {name!r} may reach from e^{low:.1f} to e^{high:.1f}, {engine} holds e^{limits[0]:.1f} to "
                f"e^{limits[1]:.1f}: raise an eps, lower a top or lower the exponents"
            )
