"""Writes docs/reference/gate-checks.md: every check of the gate, from the classes that make it."""

from corewrite.cycle.recovery import mitigated
from corewrite.gate import CHECKS
from corewrite.gate.check import Check
from corewrite.training import TrainingConfig

PAGE = "reference/gate-checks.md"
HEAD = """\
# The checks of the gate

Made by `python tools/reference.py` from the code. A check compares the candidate's metric with a baseline's on
the same searches: `champion` (in a first week, when there is none, the warm start that the training began from), `no
rewriter`, or `zero` where the margin is a limit on the metric itself. D is the difference, signed so that higher is
better; a guardrail passes where the lower bound of D is above minus its margin (`gate.margins.NAME`), and fails where
the upper bound is below it, corrected for the number of checks; else it is unclear, which holds. How the bounds are
made: [The gate](../concepts/gate.md#bounds).

| check | asks | kind | baseline | margin | where it fails, the next training |
| --- | --- | --- | --- | --- | --- |
"""
MITIGATIONS = """
## Mitigations

What the next week's training does about a check that failed. Each is applied again after a further REJECT; the values are those
that the defaults become.

| mitigation | settings of `training` |
| --- | --- |
"""
_NAMES = ("stronger_kl", "wider_pair_margin", "length_control", "higher_sft_weight", "lower_rate")


def page() -> str:
    """The page."""
    return HEAD + "".join(map(_row, own_checks())) + MITIGATIONS + "".join(map(_mitigation, _NAMES))


def own_checks() -> list[type[Check]]:
    """The checks of this package; installed ones of others are not on the page."""
    return [check for check in CHECKS.values() if check.__module__.startswith("corewrite.")]


def _row(check: type[Check]) -> str:
    margin = "must rise" if check.default_margin is None and check.kind == "reward" else check.default_margin
    mitigation = "" if check.mitigation == "none" else f"`{check.mitigation}`"
    cells = (f"`{check.name}`", check.question, check.kind, check.baseline, "" if margin is None else str(margin), mitigation)
    return f"| {' | '.join(cells)} |\n"


def _mitigation(name: str) -> str:
    before, after = TrainingConfig().model_dump(), mitigated(TrainingConfig(), [name]).model_dump()
    changes = ", ".join(f"`{key}` {before[key]} → {value}" for key, value in after.items() if value != before[key])
    return f"| `{name}` | {changes} |\n"
