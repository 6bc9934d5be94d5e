"""When training stops before its last phase."""

from collections.abc import Sequence


def reward_plateaued(rewards: Sequence[float], patience: int) -> bool:
    """Whether the reward no longer rises: its mean over the last phases is not above that over as many before.

    Early stopping (Prechelt 1998, doi:10.1007/3-540-49430-8_3) on what every phase measures anyway. Of two means of `patience`
    phases and not of two phases, since each phase samples other instances.

    Args:
        rewards: Mean log R of the samples of each phase so far, nats.
        patience: Phases of each mean; 0: never.
    """
    if not patience or len(rewards) < 2 * patience:
        return False
    return sum(rewards[-patience:]) <= sum(rewards[-2 * patience : -patience])
