"""Assignment of users, not searches, to the arms of an experiment."""

from typing import Final

from corewrite.domain.traffic_split import in_treatment

CONTROL: Final = "control"
TREATMENT: Final = "treatment"
ARMS: Final = (CONTROL, TREATMENT)


def check_share(share: float) -> None:
    """Refuse a treatment share that would leave an arm empty.

    Raises:
        ValueError: `share` is not strictly between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share {share} of users in treatment must lie strictly between 0 and 1")


def assign(user_id: str, salt: str, share: float = 0.5) -> str:
    """Arm of a user: a pure function of user and salt, so that every server and every replay agrees.

    Args:
        user_id: The user.
        salt: Names the launch. A new salt for every launch spreads the users of an earlier one evenly over
            both arms, so that what it left behind in them (carry-over) does not bias this one.
        share: Share of users in treatment.

    Returns:
        "control" or "treatment".

    Raises:
        ValueError: `salt` is empty or the gate's, or `share` is not strictly between 0 and 1.
    """
    check_share(share)
    if not salt:
        raise ValueError("the salt is empty: give every launch its own, or all would split the users alike")
    return TREATMENT if in_treatment(user_id, salt, share) else CONTROL
