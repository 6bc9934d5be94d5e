from collections.abc import Callable

import numpy as np
import pytest

from corewrite.domain import Context, Query
from corewrite.gate import Evaluation, PolicyOutputs


@pytest.fixture(scope="session")
def simulate() -> Callable[..., Evaluation]:
    """Two policies of the same kind; each gain is added to the candidate. Queries of one user are alike."""

    def make(seed: int, users: int = 100, per_user: int = 4, reward_gain: float = 0.0, judge_gain: float = 0.0) -> Evaluation:
        rng = np.random.default_rng(seed)
        n = users * per_user
        user = np.repeat(np.arange(users), per_user)
        queries = [
            Query(f"item{a} kind{b}", Context((f"earlier{c} item{a}",), (f"title{c} seen",)))
            for a, b, c in rng.integers(0, 40, (n, 3))
        ]
        original = rng.uniform(0.3, 0.7, n)

        def policy(reward_gain: float, judge_gain: float) -> PolicyOutputs:
            details = rng.integers(0, 300, n)
            rewrites = [f"{q.text} detail{d}" if d < 270 else "" for q, d in zip(queries, details, strict=True)]
            reward = rng.gamma(2.0, 0.1, n) + rng.normal(0, 0.1, users)[user] + reward_gain
            judge = original + 0.04 + rng.normal(0, 0.02, n) + rng.normal(0, 0.01, users)[user] + judge_gain
            return PolicyOutputs(rewrites, reward, judge)

        slices = {"head": rng.random(n) < 0.6, "context needed": rng.random(n) < 0.5}
        slices["tail"] = ~slices["head"]
        candidate = policy(reward_gain, judge_gain)
        return Evaluation([f"u{u}" for u in user], queries, slices, candidate, policy(0.0, 0.0), original)

    return make
