"""The registry's nouns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Kind = Literal["policy", "relevance", "spec"]
DecisionKind = Literal["promote", "hold", "reject", "rollback", "quarantine"]

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Artifact:
    """A stored folder and what is known of it.

    Attributes:
        kind: What it is.
        hash: Content hash, hex SHA-256 of the canonical JSON of `files`.
        files: Hex SHA-256 of every file by relative POSIX path.
        metadata: Metrics, times, provenance; outside the hash. Of content saved more than once, the first's.
        created: When it was first saved, ISO 8601 in UTC.
        collected: When the garbage collection took its content away, None where it is there. Saving the same
            content again brings it back.
    """

    kind: Kind
    hash: str
    files: Mapping[str, str]
    metadata: Mapping[str, JSON]
    created: str
    collected: str | None = None


@dataclass(frozen=True)
class Candidate:
    """What is proposed for production: a change of any of the three is a new candidate.

    Attributes:
        policy: Content hash of the rewriter.
        relevance: Content hash of the relevance model.
        spec: Content hash of the fusion spec's artifact (not the hash of the parsed spec).
    """

    policy: str
    relevance: str
    spec: str

    @property
    def hashes(self) -> dict[Kind, str]:
        """The three hashes by kind."""
        return {"policy": self.policy, "relevance": self.relevance, "spec": self.spec}


@dataclass(frozen=True)
class Champion(Candidate):
    """The candidate in production.

    Attributes:
        version: Number of the decision that put it there. It only ever grows, also by a rollback to an
            earlier triple, so that it serves as the token of a compare-and-swap.
        fallback: Version of the champion that a rollback restores, None where there is none before it.
    """

    version: int
    fallback: int | None


@dataclass(frozen=True)
class Decision:
    """One entry of the log.

    Attributes:
        number: 1, 2, ... without gaps.
        time: When, ISO 8601 in UTC.
        verdict: What was decided.
        candidate: What it was about; of a rollback, what was restored; None for a quarantine.
        quarantined: Kind and hash of the artifact put in quarantine; None for any other verdict.
        previous: Version of the champion at the time, None where there was none.
        reason: Why, in words.
        evidence: Why, in numbers.
        code_version: Version of corewrite that wrote the entry.
    """

    number: int
    time: str
    verdict: DecisionKind
    candidate: Candidate | None
    quarantined: tuple[Kind, str] | None
    previous: int | None
    reason: str
    evidence: JSON
    code_version: str

    @property
    def hashes(self) -> dict[Kind, str]:
        """Hashes by kind of the artifacts it is about: a candidate's three, a quarantine's one."""
        if self.quarantined is not None:
            return dict([self.quarantined])
        return {} if self.candidate is None else self.candidate.hashes


@dataclass(frozen=True)
class Finding:
    """Something `Registry.verify_all` found wrong.

    Attributes:
        kind: Of the artifact.
        hash: Of the artifact; for an entry on disk that is no artifact of the registry, its name.
        problem: What is wrong and what to do.
    """

    kind: Kind
    hash: str
    problem: str


@dataclass(frozen=True)
class Garbage:
    """Something the garbage collection removes.

    Attributes:
        name: Hash of an artifact, or the name of another entry on disk.
        kind: Of the artifact; None for work of a killed process.
        reason: Why it goes.
        size: Of its files, bytes.
    """

    name: str
    kind: Kind | None
    reason: str
    size: int
