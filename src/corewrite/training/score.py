"""From samples to scored candidates: deduplicate by cleaned text, add the identity, score every distinct rewrite once."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from corewrite.domain import TrainingInstance, normalise
from corewrite.rewriter import Rewrite, Rewriter
from corewrite.training.pairs import Candidate

Reward = Callable[[Sequence[TrainingInstance], Sequence[Sequence[str]]], list[npt.NDArray[np.float64]]]
"""log R of each instance's texts (see `FusedReward`)."""


def score_candidates(
    instances: Sequence[TrainingInstance], rewrites: Sequence[Sequence[Rewrite]], policy: Rewriter, reward: Reward
) -> list[list[Candidate]]:
    """Distinct candidates of every instance with their log R, the identity (candidate N+1) first.

    Samples with nothing usable in them are no rewrite, which ranks as the identity does: they get its reward, and being
    malformed can never be chosen.

    Raises:
        ValueError: a reward is not a number; the message names instance and text.
    """
    distinct = [_distinct(x, row, policy) for x, row in zip(instances, rewrites, strict=True)]
    # The identity is scored too, not assumed neutral: in the constant form it is not.
    served = [[c.text or row[0].text for c in row] for row in distinct]
    scores = reward(instances, served)
    for instance, row, values in zip(instances, distinct, scores, strict=True):
        if not np.isfinite(values).all():
            text = row[int(np.flatnonzero(~np.isfinite(values))[0])].text
            raise ValueError(
                f"the reward of rewrite {text!r} of instance {instance.instance_id!r} is not a number: "
                "does the relevance model score all documents of D+ and D-?"
            )
    return [
        [
            Candidate(c.text, c.token_ids, float(value), c.ended, c.malformed, c.identity)
            for c, value in zip(row, values, strict=True)
        ]
        for row, values in zip(distinct, scores, strict=True)
    ]


def _distinct(instance: TrainingInstance, rewrites: Sequence[Rewrite], policy: Rewriter) -> list[Candidate]:
    """The identity and the distinct samples, not scored yet; of equal texts the first well-formed sample stands for all."""
    own = normalise(instance.query.text)
    identity = Candidate(own, tuple(policy.template.encode_target(own)), 0.0, identity=True)
    found = {own: identity}
    for r in sorted(rewrites, key=lambda r: (r.malformed, not r.ended)):  # stable: sampling order within
        found.setdefault(r.text, Candidate(r.text, r.token_ids, 0.0, r.ended, r.malformed))
    return list(found.values())
