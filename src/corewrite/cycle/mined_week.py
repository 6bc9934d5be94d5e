"""A week of the log, mined once and kept as files: later steps of a cycle, and later cycles, read these and not the log."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corewrite.cycle.records import MINE, MinedRecord
from corewrite.cycle.users import read_users
from corewrite.cycle.window import read_window
from corewrite.domain import Documents, Outcome, TrainingInstance
from corewrite.domain.documents import known_ids
from corewrite.domain.traffic_split import HOLDBACK, is_holdback_user
from corewrite.evaluation.searches import query_frequency
from corewrite.logs import (
    Reformulation,
    SatisfactionThresholds,
    read_evaluation_instances,
    read_instances,
    read_reformulations,
    write_instances,
    write_reformulations,
)
from corewrite.logs.outcomes import Overlap
from corewrite.logs.sealing import Unseal
from corewrite.relevance import Impressions
from corewrite.storage.durable import make_folder, move_folder, naming, sync_tree, whole_file
from corewrite.storage.journal import JournalError
from corewrite.storage.json_file import read_object
from corewrite.storage.run_layout import RunLayout

_ABOUT, _USERS = "about.json", "users.parquet"
_REFORMULATIONS = ("repaired", "good")
"""File names of successful reformulations and satisfied queries, since the first version."""


@dataclass(frozen=True, eq=False)
class MinedWindow:
    """What a week's log gave; everything is read when asked for.

    Attributes:
        folder: Where it lies.
        left_out: Users who are not to be trained on, whatever split them when the week was mined: the frozen set's.
    """

    folder: Path
    left_out: frozenset[str] = frozenset()

    @property
    def is_there(self) -> bool:
        """Whether the week was mined."""
        return (self.folder / _ABOUT).is_file()

    @cached_property
    def about(self) -> MinedRecord:
        """Time span, outcome shares, counts, warnings and satisfaction thresholds.

        Raises:
            JournalError: the file is damaged.
        """
        return cast(MinedRecord, read_object(self.folder / _ABOUT, JournalError, self._anew, MINE.shape))

    @property
    def span(self) -> str:
        """First and last moment, ISO 8601, joined by "/"."""
        return str(self.about["span"])

    @property
    def thresholds(self) -> SatisfactionThresholds | None:
        """Watch times that satisfied; None where another rule told satisfaction."""
        if (found := self.about["thresholds"]) is None:
            return None
        edges, seconds = (np.array(found[name], np.float64) for name in ("edges", "seconds"))
        if len(seconds) != len(edges) + 1:
            raise JournalError(f"{self.folder / _ABOUT} is damaged (thresholds: {len(edges)} edges): {self._anew}")
        return SatisfactionThresholds(edges, seconds)

    @property
    def _anew(self) -> str:
        return f"remove {self.folder}, and the week is mined again"

    def instances(self) -> list[TrainingInstance]:
        """Instances of users who may be trained on."""
        return [x for x in read_instances(self.folder / "instances.parquet") if x.user_id not in self.left_out]

    def gate_instances(self) -> list[TrainingInstance]:
        """All of the gate users' instances, in the order they were mined."""
        return read_evaluation_instances(self.folder / "gate.parquet")

    def for_gate(self, limit: int) -> list[TrainingInstance]:
        """At most `limit` of the gate users' instances, at least a third of users without a rewriter where there are any."""
        found = self.gate_instances()
        held_back = self._held_back
        apart = [is_holdback_user(x.user_id) if held_back is None else x.user_id in held_back for x in found]
        held = [x for x, h in zip(found, apart, strict=True) if h]
        served = [x for x, h in zip(found, apart, strict=True) if not h]
        held = held[: max(limit // 3, limit - len(served))]
        if held:
            served = served[: min(limit - len(held), max(2 * len(held), limit // 2))]
        return sorted([*held, *served[: limit - len(held)]], key=lambda x: (x.timestamp, x.instance_id))

    def reformulations(self) -> tuple[list[Reformulation], list[Reformulation]]:
        """Successful reformulations, and queries that satisfied as they were, of users who may be trained on."""
        successful_reformulations, satisfied_queries = (
            read_reformulations(self.folder / f"{name}.parquet") for name in _REFORMULATIONS
        )
        left_out = self.left_out
        return (
            [r for r in successful_reformulations if r.user_id not in left_out],
            [r for r in satisfied_queries if r.user_id not in left_out],
        )

    def gate_repairs(self) -> list[Reformulation]:
        """Repairs of the gate's users."""
        return read_reformulations(self.folder / "gate-repaired.parquet")

    def impressions(self) -> pa.Table:
        """Examined results of users who may be trained on."""
        table = pq.read_table(self.folder / "impressions.parquet")
        return table.filter(pc.invert(pc.is_in(table["user_id"], pa.array(sorted(self.left_out), pa.string()))))

    def endings(self) -> dict[str, Counter[str]]:
        """How searches ended, but for censored ones: of users without a rewriter for good ("holdback"), and of all others."""
        table = pq.read_table(self.folder / "searches.parquet", columns=["user_id", "arm", "outcome"])
        told = self._held_back is not None
        found: dict[str, Counter[str]] = {"holdback": Counter(), "served": Counter()}
        for user, arm, outcome in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
            if outcome != Outcome.CENSORED:
                held = arm == HOLDBACK if told else is_holdback_user(user)
                found["holdback" if held else "served"][outcome] += 1
        return found

    @cached_property
    def _held_back(self) -> frozenset[str] | None:
        """Who was served without a rewriter, as logged; None of a week that was mined before that was kept."""
        path = self.folder / _USERS
        return (read_users(path).held_back or frozenset()) if path.is_file() else None

    def frequency(self) -> Counter[str]:
        """Occurrences of each normalised query."""
        table = pq.read_table(self.folder / "frequency.parquet")
        return Counter(dict(zip(table["query"].to_pylist(), table["count"].to_pylist(), strict=True)))


def with_documents(instances: Sequence[TrainingInstance], documents: Documents) -> list[TrainingInstance]:
    """The instances without documents that are gone; those that have no D+ or no D- any more are left out."""
    known = known_ids(documents, (d for x in instances for d in (*x.positives, *x.negatives)))
    found = []
    for x in instances:
        if not all(d in known for d in (*x.positives, *x.negatives)):
            good = [(d, w) for d, w in zip(x.positives, x.gains, strict=True) if d in known]
            bad = [(d, w) for d, w in zip(x.negatives, x.weights, strict=True) if d in known]
            if not good or not bad:
                continue
            (positives, gains), (negatives, weights) = zip(*good, strict=True), zip(*bad, strict=True)
            x = replace(x, positives=positives, gains=gains, negatives=negatives, weights=weights)
        found.append(x)
    return found


def frequencies(windows: Sequence[MinedWindow]) -> tuple[Counter[str], Counter[str]]:
    """Occurrences of each normalised query in all of some weeks, and in all but the last."""
    counts = [w.frequency() for w in windows]
    return sum(counts, Counter()), sum(counts[:-1], Counter())


def first_thresholds(run: Path) -> SatisfactionThresholds | None:
    """Watch times that satisfy, as they were frozen on the first week that a run mined; None where there is none."""
    windows = RunLayout(run).windows
    known = sorted(p for p in windows.glob("*") if (p / _ABOUT).is_file()) if windows.is_dir() else []
    return MinedWindow(known[0]).thresholds if known else None


def freeze(instances: Sequence[TrainingInstance], path: Path) -> None:
    """Write the evaluation set that never changes, whole or not at all: half of one would stand for ever."""
    make_folder(path.parent)
    with whole_file(path) as temporary:
        temporary.unlink(missing_ok=True)  # a killed cycle may have left one that may only be read
        write_instances(instances, temporary, evaluation_only=True)


def build_impressions(windows: Sequence[MinedWindow], documents: Documents) -> Impressions:
    """Examined results of several weeks; documents that are gone are dropped."""
    table = pa.concat_tables([w.impressions() for w in windows])
    rows = documents.find(table["document_id"].to_pylist())
    table = table.filter(pa.array(rows >= 0))
    return Impressions(
        table["query"].to_pylist(),
        rows[rows >= 0],
        np.array(table["satisfied"].to_numpy(zero_copy_only=False), np.bool_),
        table["weight"].to_numpy(),
        table["user_id"].to_pylist(),
    )


def mine_week(
    logs: Sequence[Path],
    documents: Documents,
    folder: Path,
    *,
    overlap: Overlap,
    thresholds: SatisfactionThresholds | None,
    seed: int,
    rejects: Path,
    unseal: Unseal | None = None,
) -> MinedWindow:
    """Read a week's log, mine it, and keep what was found in `folder`, whole or not at all; what is there is not made again.

    Args:
        logs: UBI files of the week.
        documents: Those that exist.
        folder: Where to.
        overlap: Of two texts' results under the original-only ranking.
        thresholds: Satisfaction frozen on the first week; None: this is the first.
        seed: For the random negatives.
        rejects: Where unusable lines go.
        unseal: Opens sealed texts; None: they stay sealed.

    Raises:
        ValueError: no usable query, texts that cannot be read, or too little to learn from.
    """
    if (mined := MinedWindow(folder)).is_there:
        return mined
    window = read_window(logs, overlap=overlap, thresholds=thresholds, rejects_path=rejects, unseal=unseal)
    make_folder(folder.parent)
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)  # all of it is users' texts
    with naming(folder):
        write_instances(window.instances(documents, seed=seed), staging / "instances.parquet")
        write_instances(window.instances(documents, seed=seed, for_gate=True), staging / "gate.parquet", evaluation_only=True)
        for name, found in zip(_REFORMULATIONS, window.reformulations(), strict=True):
            write_reformulations(found, staging / f"{name}.parquet")
        write_reformulations(window.gate_repairs(), staging / "gate-repaired.parquet")
        seen = window.impressions(documents)
        pq.write_table(
            pa.table(
                {
                    "query": list(seen.texts),
                    "document_id": documents.load_ids(seen.rows),
                    "satisfied": seen.satisfied,
                    "weight": seen.weights,
                    "user_id": list(seen.user_ids),
                }
            ),
            staging / "impressions.parquet",
        )
        counts = query_frequency(window.outcomes.query.tolist())
        pq.write_table(pa.table({"query": list(counts), "count": list(counts.values())}), staging / "frequency.parquet")
        pq.write_table(window.outcomes.to_arrow(), staging / "searches.parquet")
        window.users.write(staging / _USERS)
        found_thresholds = window.outcomes.thresholds
        about: MinedRecord = {
            "span": window.span,
            "searches": len(window.outcomes),
            "outcomes": window.outcomes.shares(),
            "rejected_lines": window.report.rejected,
            "warnings": [*window.report.warnings, *window.users.warnings],
            "satisfaction_told_by": window.outcomes.rule,
            "thresholds": None
            if found_thresholds is None
            else {"edges": found_thresholds.edges.tolist(), "seconds": found_thresholds.seconds.tolist()},
        }
        (staging / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", "utf-8")
        sync_tree(staging)
    move_folder(staging, folder)
    return MinedWindow(folder)
