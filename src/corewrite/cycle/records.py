"""What the steps of a cycle write down: the JSON of a week's journal, key by key.

The records are the JSON objects themselves, typed, and are written and read as they are: what another version wrote, or left
out, is kept as it was. A run folder may have been changed by hand, or by somebody who may write to its disk: the types of
what later steps go by are checked whenever a step is read. What an earlier version did not write may be missing; a key that
is asked for and is not there is an error then.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Generic, TypeVar, cast

from pydantic import AfterValidator, Field, GetPydanticSchema, SkipValidation, TypeAdapter
from pydantic_core.core_schema import literal_schema
from typing_extensions import TypedDict

from corewrite.gate import Verdict
from corewrite.registry import JSON
from corewrite.storage.journal import Journal
from corewrite.storage.run_layout import RunLayout

R = TypeVar("R", bound=Mapping[str, object])


def _plain_name(name: str) -> str:
    if not name.isprintable() or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError("a week is the name of a file or folder, without a path")
    return name


WeekName = Annotated[str, AfterValidator(_plain_name)]
Count = Annotated[int, Field(ge=0)]
WrittenVerdict = Annotated[Verdict, GetPydanticSchema(lambda *_: literal_schema([str(v) for v in Verdict]))]
"""The gate's verdict, as JSON has it: by its value."""


@dataclass(frozen=True)
class RankerHashes:
    """A relevance model and a fusion spec of the registry: what ranks and rewards.

    Attributes:
        relevance: Content hash of the relevance artifact.
        spec: Content hash of the spec's artifact.
    """

    relevance: str
    spec: str


class ThresholdsRecord(TypedDict):
    """See `SatisfactionThresholds`."""

    edges: list[float]
    seconds: list[float]


class MinedRecord(TypedDict, total=False):
    """A mined week's `about.json`; of the step "mine", with the windows before it."""

    windows: Annotated[list[WeekName], Field(min_length=1)]
    span: str
    searches: SkipValidation[int]
    outcomes: SkipValidation[Mapping[str, float]]
    rejected_lines: SkipValidation[int]
    warnings: SkipValidation[list[str]]
    satisfaction_told_by: SkipValidation[str]
    thresholds: ThresholdsRecord | None


class StartRecord(TypedDict, total=False):
    """What a cycle began with; nothing of it changes until the week is finished."""

    week: WeekName
    settings: str
    """Hash of the settings."""
    champion: Annotated[int, Field(ge=1)] | None
    """Version of the champion."""
    relevance_due: bool
    """Whether the relevance model is to be fitted again."""
    mitigations: list[str]
    """What training does differently after the latest REJECTs."""
    holds: Count
    """HOLDs in a row before this week."""
    log: Count
    """Decisions in the registry's log before this week."""
    code_version: SkipValidation[str]
    threads: Annotated[int, Field(ge=1, le=4096)] | None
    """Of arithmetic: their number is part of the result's last bits."""
    label_rows: Count
    """Rated results in the file: what comes later corrects this week's judge, and the next week's learns from it."""


class RelevanceRecord(TypedDict, total=False):
    """The relevance model that the week proposes: fitted anew, named by the settings, or the champion's."""

    relevance: str
    fitted: bool
    weeks: SkipValidation[list[str]]
    """Weeks of log it was fitted on, where it was."""
    alarm: str
    refused: SkipValidation[bool]
    """Whether the ranker that the settings name cannot be used."""


class SpecRecord(TypedDict, total=False):
    """The fusion spec that the settings name."""

    spec: str


class RankerRecord(TypedDict):
    """See `RankerHashes`."""

    relevance: str
    spec: str


class ProbeRecord(TypedDict, total=False):
    """Which relevance model and spec the week ranks and rewards under, and why."""

    relevance: str
    spec: str
    changed: bool
    accepted: bool
    gone: bool
    """Whether the champion's ranker, which the settings do not name any more, does not answer."""
    refused: RankerRecord
    """What was proposed and is not used."""
    alarms: list[str]
    probe: SkipValidation[Mapping[str, object]]
    """See `ProbeResult`."""
    random_pairs: SkipValidation[list[Mapping[str, object]]]
    """See `RandomPairs`."""


class StartPolicyRecord(TypedDict, total=False):
    """The policy that training begins from, and the fine-tuning that made it."""

    policy_hash: SkipValidation[str]
    kinds: SkipValidation[Mapping[str, int]]
    """Examples of each kind, of a warm start."""
    steps: SkipValidation[int]
    first_loss: SkipValidation[float]
    last_loss: SkipValidation[float]
    examples: SkipValidation[int]


class TrainRecord(TypedDict, total=False):
    """The candidate, and the training that made it."""

    policy: str
    provenance: Mapping[str, object]
    instances: SkipValidation[int]
    settings: Mapping[str, object]
    """See `TrainingConfig`; mitigations are applied."""
    training: SkipValidation[Mapping[str, object]]
    """See `TrainingReport`."""


class GateRecord(TypedDict, total=False):
    """See `GateResult`."""

    verdict: WrittenVerdict
    reason: str
    users: SkipValidation[int]
    effective_users: SkipValidation[float]
    queries: SkipValidation[int]
    failed: list[str]
    mitigations: list[str]
    checks: list[Mapping[str, object]]


class WeekRecord(TypedDict, total=False):
    """How a week ended."""

    week: WeekName
    verdict: WrittenVerdict
    reason: str
    failed: list[str]
    mitigations: list[str]
    """What the failed checks ask of the next training."""
    mitigations_applied: list[str]
    candidate: str
    relevance: str
    spec: str
    relevance_fitted: bool
    alarms: list[str]
    recovered: bool
    """Whether the relevance model and spec before were put back."""
    traffic: SkipValidation[Mapping[str, Mapping[str, float]]]
    """How the week's searches ended, of users with and without a rewriter."""
    labels: SkipValidation[Mapping[str, object]]
    provenance: SkipValidation[Mapping[str, object]]
    policy: str | None
    """Of the champion after the week."""


def _says_why(probe: ProbeRecord) -> ProbeRecord:
    if probe.get("accepted") is False and not probe.get("alarms"):
        raise ValueError("what is not accepted has an alarm that says why")
    return probe


@dataclass(frozen=True)
class CycleStep(Generic[R]):
    """A step of the journal.

    Attributes:
        name: Of its file.
        shape: Types of what it writes down, checked whenever that is read.
    """

    name: str
    shape: TypeAdapter[R]


START = CycleStep("start", TypeAdapter(StartRecord))
MINE = CycleStep("mine", TypeAdapter(MinedRecord))
RELEVANCE = CycleStep("relevance", TypeAdapter(RelevanceRecord))
SPEC = CycleStep("spec", TypeAdapter(SpecRecord))
PROBE: CycleStep[ProbeRecord] = CycleStep("probe", TypeAdapter(Annotated[ProbeRecord, AfterValidator(_says_why)]))
START_POLICY = CycleStep("start-policy", TypeAdapter(StartPolicyRecord))
TRAIN = CycleStep("train", TypeAdapter(TrainRecord))
GATE = CycleStep("gate", TypeAdapter(GateRecord))
RECORD = CycleStep("record", TypeAdapter(WeekRecord))

_STEPS: tuple[CycleStep[Any], ...] = (START, MINE, RELEVANCE, SPEC, PROBE, START_POLICY, TRAIN, GATE, RECORD)
SHAPES: Mapping[str, TypeAdapter[Any]] = MappingProxyType({step.name: step.shape for step in _STEPS})
"""By the name of the step."""


class CycleJournal:
    """The journal of a week's cycle, begun or not: `Journal`, with a typed record for every step.

    Attributes:
        week: Name of the week.
        folder: Of the cycle.
    """

    def __init__(self, run: Path, week: str) -> None:
        self.week = week
        self.folder = RunLayout(run).cycle(week).root
        self._journal = Journal(self.folder, SHAPES)

    def once(self, step: CycleStep[R], compute: Callable[[], R]) -> R:
        """What the step wrote down: read where it is done, else computed and written.

        Raises:
            JournalError: the file is damaged.
        """
        return cast(R, self._journal.once(step.name, compute))

    def read(self, step: CycleStep[R]) -> R | None:
        """What the step wrote down; None where it is not done.

        Raises:
            JournalError: the file is damaged.
        """
        return cast("R | None", self._journal.read(step.name))

    def result(self, step: CycleStep[R]) -> R:
        """What a step that is done wrote down.

        Raises:
            JournalError: it is not done, or its file is damaged.
        """
        return cast(R, self._journal.result(step.name))

    def done(self) -> list[str]:
        """Names of the steps that are done, in the order they were."""
        return self._journal.done()


def open_journals(run: Path) -> list[CycleJournal]:
    """The journals of a run's cycles, by week."""
    return [CycleJournal(run, folder.name) for folder in sorted(RunLayout(run).cycles.glob("*")) if folder.is_dir()]


def as_json(record: Mapping[str, object]) -> dict[str, JSON]:
    """A record as evidence for the registry, which refuses what is no JSON."""
    return dict(cast(Mapping[str, JSON], record))
