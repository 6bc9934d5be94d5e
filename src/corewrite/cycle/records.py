"""What the steps of a cycle write down, as far as later steps and later cycles go by it.

A run folder may have been changed by hand, or by somebody who may write to its disk: the types are checked when a step is read.
What an earlier version did not write may be missing; a key that is asked for and is not there is an error then.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter
from typing_extensions import TypedDict

from corewrite.storage.journal import Journal


def _plain_name(name: str) -> str:
    if not name.isprintable() or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError("a week is the name of a file or folder, without a path")
    return name


WeekName = Annotated[str, AfterValidator(_plain_name)]
Verdict = Literal["promote", "hold", "reject"]
Count = Annotated[int, Field(ge=0)]


class MinedThresholds(TypedDict):
    """See `SatisfactionThresholds`."""

    edges: list[float]
    seconds: list[float]


class Mined(TypedDict, total=False):
    """A mined week's `about.json`; of the step "mine", with the windows."""

    span: str
    thresholds: MinedThresholds | None
    windows: Annotated[list[WeekName], Field(min_length=1)]


class _Start(TypedDict, total=False):
    week: WeekName
    settings: str
    champion: Annotated[int, Field(ge=1)] | None
    relevance_due: bool
    mitigations: list[str]
    holds: Count
    log: Count
    threads: Annotated[int, Field(ge=1, le=4096)] | None


class _Relevance(TypedDict, total=False):
    relevance: str
    fitted: bool
    alarm: str


class _Spec(TypedDict, total=False):
    spec: str


class _Refused(TypedDict):
    relevance: str
    spec: str


class _Probe(TypedDict, total=False):
    relevance: str
    spec: str
    changed: bool
    accepted: bool
    gone: bool
    alarms: list[str]
    refused: _Refused


class _Train(TypedDict, total=False):
    policy: str
    provenance: dict[str, Any]
    settings: dict[str, Any]


class _Gate(TypedDict, total=False):
    verdict: Verdict
    reason: str
    failed: list[str]
    mitigations: list[str]
    checks: list[dict[str, Any]]


class _Record(TypedDict, total=False):
    week: WeekName
    verdict: Verdict
    reason: str
    failed: list[str]
    mitigations: list[str]
    mitigations_applied: list[str]
    candidate: str
    relevance: str
    spec: str
    policy: str | None
    relevance_fitted: bool
    recovered: bool
    alarms: list[str]


def _says_why(probe: _Probe) -> _Probe:
    if probe.get("accepted") is False and not probe.get("alarms"):
        raise ValueError("what is not accepted has an alarm that says why")
    return probe


MINED: TypeAdapter[Any] = TypeAdapter(Mined)
SHAPES: Mapping[str, TypeAdapter[Any]] = MappingProxyType(
    {
        "start": TypeAdapter(_Start),
        "mine": MINED,
        "relevance": TypeAdapter(_Relevance),
        "spec": TypeAdapter(_Spec),
        "probe": TypeAdapter(Annotated[_Probe, AfterValidator(_says_why)]),
        "train": TypeAdapter(_Train),
        "gate": TypeAdapter(_Gate),
        "record": TypeAdapter(_Record),
    }
)
"""By step."""


def open_journals(run: Path) -> list[Journal]:
    """The journals of a run's cycles, by week; what is read from them is checked."""
    return [open_journal(run, folder.name) for folder in sorted((run / "cycles").glob("*")) if folder.is_dir()]


def open_journal(run: Path, week: str) -> Journal:
    """The journal of a week's cycle, begun or not; what is read from it is checked."""
    return Journal(run / "cycles" / week, SHAPES)
