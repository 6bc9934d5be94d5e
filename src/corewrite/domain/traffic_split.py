"""Who gets what: the users of the gate, of the holdback and of a ramp."""

from typing import Literal

from pydantic import Field, model_validator

from corewrite.domain.hashing import hash_share
from corewrite.domain.settings import Settings

GATE_SHARE = 0.2
"""Share of users kept for the gate, out of warm start, training and relevance fitting."""
HOLDBACK_SHARE = 0.05
"""Share of users, all of them the gate's, who are never shown a rewrite's effect: logs favour the champion."""


def is_gate_user(user_id: str) -> bool:
    """Whether a user's searches belong to the gate: a fixed hash, so a user never changes sides."""
    return hash_share(user_id, "gate") < GATE_SHARE


def is_holdback_user(user_id: str) -> bool:
    """Whether a user is served without a rewriter for good; a fixed hash, and every such user is a gate user."""
    return hash_share(user_id, "gate") < HOLDBACK_SHARE


def in_treatment(user_id: str, salt: str, share: float) -> bool:
    """Whether a user is among the `share` who get the new version; a larger share keeps all of a smaller one.

    Args:
        user_id: The user.
        salt: Names the ramp, so that each draws its own users.
        share: Share of users, 0 for nobody to 1 for all.

    Raises:
        ValueError: `salt` is empty or `share` is not within [0, 1].
    """
    if not salt:
        raise ValueError("the salt is empty: give every ramp its own, or all would try new versions on the same users")
    if not 0 <= share <= 1:
        raise ValueError(f"share {share} of users must lie within [0, 1]")
    return hash_share(user_id, salt) < share


Arm = Literal["none", "launch_1", "launch_2"]
STAGES_OF: dict[Arm, tuple[str, ...]] = {
    "none": (),
    "launch_1": ("finerank",),
    "launch_2": ("recall", "rawrank", "finerank"),
}
"""The stages that use the rewrite in each arm."""


class Shares(Settings):
    """Shares of the clients in each arm; they sum to 1."""

    none: float = Field(default=0.0, ge=0, le=1)
    """No rewriter."""
    launch_1: float = Field(default=0.0, ge=0, le=1)
    """The rewrite at finerank only."""
    launch_2: float = Field(default=1.0, ge=0, le=1)
    """The rewrite at all stages of the spec."""
    salt: str = Field(default="corewrite", min_length=1)
    """Names the launch: a new salt spreads the clients anew."""

    @model_validator(mode="after")
    def _whole(self) -> "Shares":
        total = self.none + self.launch_1 + self.launch_2
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the arms' shares sum to {total}, not 1")
        return self


def arm_of(client_id: str, shares: Shares) -> Arm:
    """Arm of a client: a pure function of id and salt, so that every worker agrees and a client stays where it is."""
    place = hash_share(client_id, shares.salt)
    if place < shares.none:
        return "none"
    return "launch_1" if place < shares.none + shares.launch_1 else "launch_2"
