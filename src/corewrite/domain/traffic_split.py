"""Who gets what: the users of the gate, of the holdback and of a ramp."""

from corewrite.domain.hashing import hash_share

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
