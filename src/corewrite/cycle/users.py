"""Whose searches are whose: the gate's users, and those who were served without a rewriter."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.domain.traffic_split import HOLDBACK, is_gate_bucket, is_gate_user
from corewrite.logs import Outcomes, read_evaluation_instances
from corewrite.storage.durable import make_private, naming

_SCHEMA = pa.schema([("user_id", pa.string()), ("bucket", pa.int32()), ("gate", pa.bool_()), ("held_back", pa.bool_())])


@dataclass(frozen=True, eq=False)
class Users:
    """The users of a log.

    Attributes:
        bucket: By user id, as logged; None where it was not.
        gate: Users whose searches are the gate's, and who are never trained on.
        held_back: Users all of whose searches were served in the arm "holdback"; None where the log knows no arms.
        warnings: What to know of the split.
    """

    bucket: dict[str, int | None]
    gate: frozenset[str]
    held_back: frozenset[str] | None
    warnings: tuple[str, ...] = ()

    def may_train(self, user_id: str) -> bool:
        """Whether a user's searches may be trained on."""
        return user_id not in self.gate

    def is_gate(self, user_id: str) -> bool:
        """Whether a user's searches are the gate's."""
        return user_id in self.gate

    def write(self, path: Path) -> None:
        """Write a row per user."""
        names = sorted(self.bucket)
        held = self.held_back
        columns = {
            "user_id": names,
            "bucket": [self.bucket[u] for u in names],
            "gate": [u in self.gate for u in names],
            "held_back": [None if held is None else u in held for u in names],
        }
        with naming(path):
            pq.write_table(pa.table(columns, schema=_SCHEMA), make_private(path))


def build_users(outcomes: Outcomes) -> Users:
    """Split the users of a log.

    A user is the gate's by the bucket that was logged, which is of the id that the application knows; where none was, by the
    id in the log. A user some of whose searches have a bucket is split by it alone. Who was held back is not computed: what
    was served is what counts.
    """
    buckets: dict[str, set[int | None]] = defaultdict(set)
    arms: dict[str, set[str]] = defaultdict(set)
    for user, bucket, arm in zip(outcomes.user_id, outcomes.bucket, outcomes.arm, strict=True):
        buckets[user].add(bucket)
        arms[user].add(arm)
    known = {user: sorted(b for b in found if b is not None) for user, found in buckets.items()}
    gate = frozenset(
        user for user, found in known.items() if (any(map(is_gate_bucket, found)) if found else is_gate_user(user))
    )
    held_back = None
    if any(arm for found in arms.values() for arm in found):
        held_back = frozenset(user for user, found in arms.items() if found == {HOLDBACK})
    return Users({u: b[0] if b else None for u, b in known.items()}, gate, held_back, _warnings(buckets, gate, held_back))


def _warnings(buckets: dict[str, set[int | None]], gate: frozenset[str], held_back: frozenset[str] | None) -> tuple[str, ...]:
    found = []
    if some := sum(None in b and len(b) > 1 for b in buckets.values()):
        found.append(f"{some} users have a bucket in some of their searches only: they are split by it")
    if torn := sum(len(b - {None}) > 1 for b in buckets.values()):
        found.append(f"{torn} users have several buckets: they are the gate's where one of them is")
    if held_back is None:
        found.append("the log does not say in which arm a search was served: nobody is taken for held back")
    elif not held_back & gate:
        found.append("nobody of the gate's users was served in the arm 'holdback': its searches favour the champion")
    return tuple(found)


def frozen_users(frozen: Path) -> frozenset[str]:
    """The users of the frozen evaluation set, none of whom is ever trained on, however they are split today; none without it.

    Raises:
        ValueError: the file is not marked as the gate's.
    """
    return frozenset(x.user_id for x in read_evaluation_instances(frozen)) if frozen.is_file() else frozenset()


def read_users(path: Path) -> Users:
    """Read what `Users.write` wrote."""
    table = pq.read_table(path, schema=_SCHEMA)
    names, held = table["user_id"].to_pylist(), table["held_back"].to_pylist()
    gate = frozenset(u for u, is_gate in zip(names, table["gate"].to_pylist(), strict=True) if is_gate)
    held_back = None if None in held else frozenset(u for u, h in zip(names, held, strict=True) if h)
    return Users(dict(zip(names, table["bucket"].to_pylist(), strict=True)), gate, held_back)
