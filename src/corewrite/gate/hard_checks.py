"""What no statistics can excuse."""

import numpy as np

from corewrite.gate.evaluation import Evaluation


def hard_failure(evaluation: Evaluation) -> str | None:
    """Why the candidate is refused without a comparison, or None where it is not.

    It is where its outputs do not match the queries in number, a reward is not a finite number, or no
    rewrite of it differs from its query: a rewriter that is broken, or none. No query at all is no fault of
    the candidate.
    """
    n, candidate = len(evaluation), evaluation.candidate
    for name, size in candidate.sizes().items():
        if size != n:
            return f"hard check failed: the candidate's {name} has {size} entries for {n} queries."
    if candidate.log_reward is not None:
        bad = np.flatnonzero(~np.isfinite(np.asarray(candidate.log_reward, np.float64)))
        if bad.size:
            first = int(bad[0])
            value, text = candidate.log_reward[first], evaluation.queries[first].text
            return (
                f"hard check failed: the candidate's log_reward is {value} at query index {first} "
                f"({text!r}), {bad.size} of {n} are not finite."
            )
    if n and not any(evaluation.changed(candidate)):
        return f"hard check failed: none of the candidate's {n} rewrites differs from its query."
    return None
