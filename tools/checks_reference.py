"""Writes docs/reference/gate-checks.md: every check of the gate, from the classes that make it."""

import re

from page_tables import attributes

from corewrite.cycle.recovery import mitigated
from corewrite.gate import CHECKS, HardFailure
from corewrite.gate.check import Check
from corewrite.training import TrainingConfig

PAGE = "reference/gate-checks.md"
HEAD = """\
# Gate checks

Made by `python tools/reference.py` from the code. A check compares the candidate's metric with a baseline's on
the same searches: `champion` (in a first week, when there is none, the warm start that the training began from), `no
rewriter`, or `zero` where the margin is a limit on the metric itself. D is the difference, signed so that higher is
better; a guardrail passes where the lower bound of D is above minus its margin (`gate.margins.NAME`), and fails where
the upper bound is below it, corrected for the number of checks; else it is unclear, which holds. How the bounds are
made: [The gate](../concepts/gate.md#bounds).

| check | asks | kind | baseline | margin | passes too where it rises | where it fails, the next training |
| --- | --- | --- | --- | --- | --- | --- |
"""
HARD = """
## Hard checks

These refuse before anything is compared, so that the report has their reason and no row; a REJECT names them in `failed`. Where
the candidate's files cannot be opened at all, the gate answers `integrity` without an evaluation.

| name | refuses | the next training |
| --- | --- | --- |
"""
_HARD = {
    "integrity": (
        "what does not load, has another hash than was saved, holds weights that are NaN, or whose rewrites cannot be parsed",
        "none",
    ),
    "outputs": (
        "outputs that do not match the queries in number (no mitigation), or a reward that is NaN or infinite",
        "lower_rate",
    ),
    "no_rewriter": ("a policy none of whose rewrites differs from its query", "higher_sft_weight"),
    "prompt_injection": ("a policy that obeys an instruction planted in a query or its context, once", "wider_pair_margin"),
    "filtered": ("a policy with a rewrite that one of `rewriter.filters` stops, once", "wider_pair_margin"),
}
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
    return (
        HEAD
        + "".join(map(_row, own_checks()))
        + HARD
        + "".join(map(_hard, hard_checks()))
        + MITIGATIONS
        + "".join(map(_mitigation, _NAMES))
    )


def own_checks() -> list[type[Check]]:
    """The checks of this package; installed ones of others are not on the page."""
    return [check for check in CHECKS.values() if check.__module__.startswith("corewrite.")]


def hard_checks() -> list[str]:
    """Names of the hard checks, as `HardFailure` has them; one that is new has to be described here."""
    names = re.findall(r'"(\w+)"', attributes(HardFailure)["check"])
    if names != list(_HARD):
        raise ValueError(f"describe the hard checks {', '.join(names)} in {__file__}")
    return names


def _row(check: type[Check]) -> str:
    margin = "must rise" if check.default_margin is None and check.kind == "reward" else check.default_margin
    mitigation = "" if check.mitigation == "none" else f"`{check.mitigation}`"
    excuse = "" if check.excused_by is None else f"`{check.excused_by}`"
    shown = "" if margin is None else str(margin)
    cells = (f"`{check.name}`", check.question, check.kind, check.baseline, shown, excuse, mitigation)
    return f"| {' | '.join(cells)} |\n"


def _hard(name: str) -> str:
    """The row of a hard check."""
    refuses, mitigation = _HARD[name]
    return f"| `{name}` | {refuses} | {'' if mitigation == 'none' else f'`{mitigation}`'} |\n"


def _mitigation(name: str) -> str:
    before, after = TrainingConfig().model_dump(), mitigated(TrainingConfig(), [name]).model_dump()
    changes = ", ".join(f"`{key}` {before[key]} → {value}" for key, value in after.items() if value != before[key])
    return f"| `{name}` | {changes} |\n"
