"""What an incident is: a description, and what it puts in the place of a part of production while it lasts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from corewrite.cycle.steps.fit_relevance import Refit
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Catalogue
from corewrite.fusion import FusionSpec
from corewrite.relevance import RelevanceScorer
from corewrite.rewriter import Rewriter
from corewrite.simulation.config import TrafficConfig

T = TypeVar("T")
Kind = Literal["learned hack", "fault", "no incident"]
UbiLine = dict[str, Any]
"""A line of a UBI log, a query or an event, as JSON has it."""


def unchanged(part: T) -> T:
    """The part as it is."""
    return part


@dataclass(frozen=True, eq=False)
class BranchPoint:
    """The healthy state that all arms branch from, as far as incidents know of it.

    Attributes:
        seed: The one seed.
        relevance: Folder of the relevance model in production.
        policy: Folder of the first champion's policy.
        popularity: Parquet of documents and how often each satisfied: `document_id`, `satisfied`.
        common_words: Words of users' queries, the most frequent first.
        asked: Normalised queries that users have typed.
    """

    seed: int
    relevance: Path
    policy: Path
    popularity: Path
    common_words: tuple[str, ...]
    asked: frozenset[str]


@dataclass(frozen=True, eq=False)
class Injection:
    """Parts of production, each as it becomes while the incident lasts. By default nothing differs.

    Attributes:
        refit: The job that fits the relevance model.
        spec: The fusion spec in its file.
        ranker: What the settings say of the ranker.
        documents: The documents' file.
        log: The lines of a week's log; none: there is no such file.
        scorer: The service that computes the signal `relevance` over the documents: in serving, reward and gate.
        export: What saves a trained policy.
        traffic: What users do.
    """

    refit: Callable[[Refit], Refit] = unchanged
    spec: Callable[[FusionSpec], FusionSpec] = unchanged
    ranker: Callable[[RankerSettings], RankerSettings] = unchanged
    documents: Callable[[Catalogue], Catalogue] = unchanged
    log: Callable[[Sequence[UbiLine], Catalogue], Sequence[UbiLine]] | None = None
    scorer: Callable[[RelevanceScorer, Catalogue], RelevanceScorer] | None = None
    export: Callable[[Rewriter], Rewriter] = unchanged
    traffic: Callable[[TrafficConfig], TrafficConfig] = unchanged


@dataclass(frozen=True, eq=False)
class Incident:
    """Something that goes wrong, or only seems to.

    Attributes:
        name: Of the incident.
        kind: A learned hack is paid for by the reward, and training finds it; a fault is not; a change of users is neither.
        what: What happens, in one sentence.
        strengths: The weakest first; the last is the default.
        unit: What a strength counts.
        weeks: How many weeks it lasts; None: to the end.
        changes_ranker: Whether what ranks differs from the healthy twin's: then its damage is what the policy adds, since the
            gate of the policy does not answer for the ranker.
        inject: From a strength and the branch point to what differs.
    """

    name: str
    kind: Kind
    what: str
    strengths: tuple[float, ...]
    unit: str
    weeks: int | None
    changes_ranker: bool
    inject: Callable[[float, BranchPoint], Injection]

    @property
    def default_strength(self) -> float:
        """The strongest."""
        return self.strengths[-1]

    def lasts(self, week: int) -> bool:
        """Whether it lasts in a week after the branch, counted from 0."""
        return week >= 0 and (self.weeks is None or week < self.weeks)
