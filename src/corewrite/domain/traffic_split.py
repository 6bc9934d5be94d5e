"""Who gets what: the users of the gate, the holdback, the arms of serving, a rollout. Nothing else splits users.

One rule: `hash_share(user, salt)` is a number in [0, 1), and a user is in a group of share s where it is below s. Groups with
different salts are independent; a group that grows keeps its users. The salts:

| salt | splits |
| --- | --- |
| "gate" | the gate's users (below 0.2) and among them the holdback (below its share); for ever |
| `arms.salt` of the server's settings | all but the holdback into the arms |
| "ramp-N" | who gets version N first |
| a launch's own | control and treatment |
| "counterfactual" | whose searches are answered by both sides of a comparison, for the log |

The hash is of the user's id as the application sends it. A log holds only a keyed hash of that id, of which no group can be
told, so the place under the salt "gate" travels in the log beside it: the user's `bucket`, one of 10,000. That is coarse on
purpose: it says which group a user is in, and not who the user is.
"""

from typing import Final, Literal

from pydantic import Field, model_validator

from corewrite.domain.hashing import hash_share
from corewrite.domain.settings import Settings

NUM_BUCKETS: Final = 10_000
"""Buckets of users; shares of the gate and of the holdback are whole numbers of them."""
GATE_SHARE: Final = 0.2
"""Share of users kept for the gate, out of warm start, training and relevance fitting."""
HOLDBACK_SHARE: Final = 0.05
"""Default share of users, all of them the gate's, who are served without a rewriter for good: logs favour the champion."""
_GATE_SALT, _COMPARED_SALT = "gate", "counterfactual"
_GATE_BUCKETS: Final = round(GATE_SHARE * NUM_BUCKETS)


def assign_bucket(user_id: str) -> int:
    """Bucket of a user, 0 to `NUM_BUCKETS` - 1: of the id as the application sends it, not of its hash in a log."""
    return int(hash_share(user_id, _GATE_SALT) * NUM_BUCKETS)


def is_gate_bucket(bucket: int) -> bool:
    """Whether the users of a bucket are the gate's."""
    return bucket < _GATE_BUCKETS


def is_gate_user(user_id: str) -> bool:
    """Whether a user's searches belong to the gate: a fixed hash, so a user never changes sides.

    Of a log with buckets ask `is_gate_bucket`: its user ids are hashes, which fall elsewhere.
    """
    return is_gate_bucket(assign_bucket(user_id))


def is_holdback_bucket(bucket: int, share: float = HOLDBACK_SHARE) -> bool:
    """Whether the users of a bucket are to be served without a rewriter for good; all of them are the gate's.

    Args:
        bucket: The bucket.
        share: Share of all users, rounded to ten-thousandths.
    """
    return bucket < round(share * NUM_BUCKETS)


def is_holdback_user(user_id: str, share: float = HOLDBACK_SHARE) -> bool:
    """Whether a user is to be served without a rewriter for good. Whether one *was*, the arm in the log says."""
    return is_holdback_bucket(assign_bucket(user_id), share)


def in_treatment(user_id: str, salt: str, share: float) -> bool:
    """Whether a user is among the `share` who get the new version; a larger share keeps all of a smaller one.

    Args:
        user_id: The user.
        salt: Names the rollout, or the launch, so that each draws its own users.
        share: Share of users, 0 for nobody to 1 for all.

    Raises:
        ValueError: `salt` is empty or the gate's, or `share` is not within [0, 1].
    """
    if not salt:
        raise ValueError("the salt is empty: give every rollout its own, or all would try new versions on the same users")
    _refuse_gate_salt(salt)
    if not 0 <= share <= 1:
        raise ValueError(f"share {share} of users must lie within [0, 1]")
    return hash_share(user_id, salt) < share


def _refuse_gate_salt(salt: str) -> None:
    if salt == _GATE_SALT:
        raise ValueError(
            f"the salt {salt!r} splits the gate's users, and a group under it would not be independent of them: take another"
        )


def is_compared(client_id: str, share: float) -> bool:
    """Whether a client is among the `share` whose searches are answered by both sides of what is compared.

    All searches of a client or none: of a client with some of them nobody could say which was the first to differ.
    """
    return hash_share(client_id, _COMPARED_SALT) < share


Arm = Literal["holdback", "none", "finerank_only", "all_stages"]
HOLDBACK: Final = "holdback"
"""The arm of users who never get a rewrite; also in a log that others write."""
_ARMS_BEFORE: Final[dict[str, Arm]] = {"launch_1": "finerank_only", "launch_2": "all_stages"}
"""Names of arms in settings and logs of earlier versions, and in version 1 of the HTTP API; and what they are called now."""
STAGES_OF: Final[dict[Arm, tuple[str, ...]]] = {
    "holdback": (),
    "none": (),
    "finerank_only": ("finerank",),
    "all_stages": ("recall", "rawrank", "finerank"),
}
"""The stages that use the rewrite in each arm."""


class ArmShares(Settings):
    """Shares of the clients in each arm: the holdback first, of all; the others share the rest, and sum to 1."""

    holdback: float = Field(default=HOLDBACK_SHARE, ge=0, le=GATE_SHARE)
    """No rewriter, for good, whatever launches and rollouts do: the gate's measure of what rewriting is worth. At most the
    gate's share of all clients, from which it is taken; rounded to ten-thousandths."""
    none: float = Field(default=0.0, ge=0, le=1)
    """No rewriter: the control of a launch."""
    finerank_only: float = Field(default=0.0, ge=0, le=1)
    """The rewrite at finerank only."""
    all_stages: float = Field(default=1.0, ge=0, le=1)
    """The rewrite at all stages of the spec."""
    salt: str = Field(default="corewrite", min_length=1)
    """Names the launch: a new salt spreads the clients anew, all but the holdback."""

    @model_validator(mode="after")
    def _whole(self) -> "ArmShares":
        _refuse_gate_salt(self.salt)
        total = self.none + self.finerank_only + self.all_stages
        if abs(total - 1) > 1e-9:
            raise ValueError(
                f"the shares of none, finerank_only and all_stages, of the clients outside the holdback, sum to {total}, not 1"
            )
        return self


def current_arm(name: str) -> str:
    """Name of an arm today, whatever version named it."""
    return _ARMS_BEFORE.get(name, name)


def arm_in_v1(arm: Arm) -> str:
    """Name of an arm in version 1 of the HTTP API and in metrics, which applications log and watch: it stays as it was."""
    return next((before for before, now in _ARMS_BEFORE.items() if now == arm), arm)


def assign_arm(client_id: str, shares: ArmShares) -> Arm:
    """Arm of a client: a pure function of id and shares, so that every worker agrees and a client stays where it is."""
    if is_holdback_user(client_id, shares.holdback):
        return "holdback"
    place = hash_share(client_id, shares.salt)
    if place < shares.none:
        return "none"
    return "finerank_only" if place < shares.none + shares.finerank_only else "all_stages"


def compared_arms(shares: ArmShares) -> tuple[Arm, Arm]:
    """The two arms that are worth comparing, control first.

    The arm with the most clients and, of those with other stages than it, again the one with the most; where nobody is in
    such an arm, what it does is compared with no rewriter, and no rewriter with the rewrite at all stages.
    """
    others = 1 - shares.holdback
    share: dict[Arm, float] = {
        "none": others * shares.none,
        "all_stages": others * shares.all_stages,
        "finerank_only": others * shares.finerank_only,
        "holdback": shares.holdback,
    }
    first, *rest = sorted(share, key=lambda arm: -share[arm])
    second = next(arm for arm in rest if STAGES_OF[arm] != STAGES_OF[first])
    return (first, second) if len(STAGES_OF[first]) < len(STAGES_OF[second]) else (second, first)
