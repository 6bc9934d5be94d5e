from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest


@pytest.fixture(scope="session")
def simulate() -> Callable[..., pa.Table]:
    """Searches of users of unequal activity, heavy ones changing less; treatment multiplies two rates."""

    def make(rng: np.random.Generator, users: int, change: float = 1.0, despair: float = 1.0, share: float = 0.5):
        activity = 1 + rng.poisson(rng.gamma(1.0, 3.0, users))
        arm = rng.random(users) < share
        # A habit of one's own, besides activity: searches of one user are far from independent.
        changes = np.where(activity > 3, 0.15, 0.35) * rng.uniform(0.2, 1.8, users)
        user = np.repeat(np.arange(users), activity)
        p_changed = (changes * np.where(arm, change, 1.0))[user]
        p_gave_up = 0.2 * np.where(arm, despair, 1.0)[user]
        u = rng.random(len(user))
        outcome = np.where(u < p_changed, "changed_unsatisfied", np.where(u > 1 - p_gave_up, "gave_up", "satisfied"))
        return pa.table(
            {
                "user_id": np.char.add("u", user.astype(str)),
                "arm": np.where(arm, "treatment", "control")[user],
                "timestamp": rng.random(len(user)),
                "outcome": outcome,
                "impacted": rng.random(len(user)) < 0.7,
                "plain_changed": (outcome == "changed_unsatisfied").astype(float),
                "watch_seconds": np.where(outcome == "satisfied", rng.exponential(30.0, len(user)), 0.0),
            }
        )

    return make
