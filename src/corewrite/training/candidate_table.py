"""A phase's scored candidates as an Arrow table: `candidates.parquet`, the record that selection and resume read."""

import json
from typing import Any

import pyarrow as pa

from corewrite.training.candidates import Scored
from corewrite.training.pairs import ScoredCandidate

_RENAMED_FACTS = {"sampler_drift": "log_prob_mismatch"}


def present_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts about a phase as an earlier version wrote them, under the names they have today.

    Changed in place: of a file they are a `JsonObject`, of which a missing key is an error of the file.

    Raises:
        TypeError: they are no mapping.
    """
    if not isinstance(facts, dict):
        raise TypeError(f"facts about a phase are a mapping, not a {type(facts).__name__}")
    for former, name in _RENAMED_FACTS.items():
        if former in facts:
            facts[name] = facts.pop(former)
    return facts


def to_table(scored: Scored) -> pa.Table:
    """One row per (instance, candidate); version, lost instances and facts go into the schema's metadata."""
    rows = [(i, c) for i, row in scored.candidates.items() for c in row]
    about = {"policy_version": scored.policy_version, "lost": scored.lost, "sampled": scored.sampled}
    return pa.table(
        {
            "instance_id": [i for i, _ in rows],
            "text": [c.text for _, c in rows],
            "log_reward": [c.log_reward for _, c in rows],
            "ended": [c.ended for _, c in rows],
            "malformed": [c.malformed for _, c in rows],
            "identity": [c.identity for _, c in rows],
            "samples": [c.samples for _, c in rows],
            "token_ids": pa.array([list(c.token_ids) for _, c in rows], pa.list_(pa.int64())),
        }
    ).replace_schema_metadata({"corewrite": json.dumps(about)})


def from_table(table: pa.Table) -> Scored:
    """What `to_table` was given.

    Raises:
        ValueError, LookupError, TypeError: it is no such table.
    """
    about = json.loads(table.schema.metadata[b"corewrite"])
    candidates: dict[str, list[ScoredCandidate]] = {}
    for row in table.to_pylist():
        candidates.setdefault(row.pop("instance_id"), []).append(
            ScoredCandidate(**{**row, "token_ids": tuple(row["token_ids"])})
        )
    return Scored(about["policy_version"], candidates, about["lost"], present_facts(about["sampled"]))
