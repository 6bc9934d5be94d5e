"""What an arm's production is worth in a week, by truth and by its own reward."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.cycle.mined_week import MinedWindow
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.served import fused_lists, log_rewards, served_rewrites
from corewrite.domain import TrainingInstance
from corewrite.rewriter import Rewriter
from corewrite.simulation.week import Week
from corewrite.storage.durable import whole_file
from corewrite.studies.incidents.arm import Arm
from corewrite.studies.layout import week_name
from corewrite.studies.ratios import ratio_of_sums, standard_error
from corewrite.studies.truth import lists_ndcg10

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairedChange:
    """A relative change of a mean, paired by search, with a 95 % interval over users.

    Attributes:
        change: Difference of the means, over a scale.
        low, high: Bounds.
    """

    change: float
    low: float
    high: float


def paired_change(user_ids: list[str], new: FloatArray, old: FloatArray, *, scale: float | None = None) -> PairedChange:
    """Mean of `new` minus mean of `old`, over a scale.

    Args:
        user_ids: Whose each element is.
        new, old: Of the same searches, float64 [searches].
        scale: What to divide by, taken for known; None: the mean of `old`.
    """
    _, of = np.unique(np.asarray(user_ids), return_inverse=True)
    count = np.bincount(of).astype(np.float64)
    difference, parts = ratio_of_sums(np.bincount(of, new - old).astype(np.float64), count)
    scale = float(old.mean()) if scale is None else scale
    error = 1.96 * standard_error(parts)
    return PairedChange(difference / scale, (difference - error) / scale, (difference + error) / scale)


def measure_arm(arm: Arm, week: int, healthy: Deployment, start: Rewriter) -> dict[str, Any]:
    """Truth of a week's measured searches with the arm's policy, with the branch point's, and without one; and the reward.

    All three under what ranks in the arm: what the policy adds is told from what the ranker does.

    Args:
        arm: The arm.
        week: Its number.
        healthy: What ranked at the branch point: under it the searches come about, the same for all arms.
        start: The champion at the branch point.
    """
    with arm.steps.step(f"{week_name(week)}: truth"):
        config = arm.platform.config.platform
        traffic = arm.injection(week).traffic(config.traffic)
        searches = arm.platform.measured(week, healthy.cascade, traffic)
        deployment, policy = arm.deployment(week), arm.policy(week)
        same = policy.policy_hash == start.policy_hash  # then both are measured at once
        policies = {"policy": policy} if same else {"policy": policy, "start": start}
        new_tokens = config.pipeline.max_new_tokens
        rewrites = {n: served_rewrites(p, searches.queries, max_new_tokens=new_tokens) for n, p in policies.items()}
        nothing: list[str | None] = [None] * len(searches)
        truth = {name: _truth(arm, searches, deployment, texts) for name, texts in {**rewrites, "none": nothing}.items()}
        truth.setdefault("start", truth["policy"])
        with whole_file(arm.layout.searches(week)) as temporary:
            pq.write_table(pa.table({"user_id": list(searches.user_ids), **truth}), temporary)
        instances = _instances(arm, week)
        earned = {}
        for name, one in policies.items():
            texts = served_rewrites(one, [x.query for x in instances], max_new_tokens=new_tokens)
            earned[name] = log_rewards(deployment, instances, texts)
        earned.setdefault("start", earned["policy"])
        with whole_file(arm.layout.rewards(week)) as temporary:
            pq.write_table(pa.table({"user_id": [x.user_id for x in instances], **earned}), temporary)
    served = [text or query.text for text, query in zip(rewrites["policy"], searches.queries, strict=True)]
    return {
        **arm.production(week),
        "ndcg10": float(truth["policy"].mean()),
        "without": float(truth["none"].mean()),
        "start": float(truth["start"].mean()),
        "reward": float(np.nanmean(earned["policy"])),
        "reward_start": float(np.nanmean(earned["start"])),
        "words": float(np.mean([len(text.split()) for text in served])),
        "examples": [[q.text, text] for q, text in list(zip(searches.queries, served, strict=True))[:12]],
    }


def _truth(arm: Arm, searches: Week, deployment: Deployment, rewrites: list[str | None]) -> FloatArray:
    return lists_ndcg10(arm.platform.world, searches, fused_lists(deployment, searches.queries, rewrites))


def _instances(arm: Arm, week: int) -> list[TrainingInstance]:
    """Of gate users, from the newest week before that was mined."""
    mined = (MinedWindow(arm.layout.run.window(week_name(w))) for w in range(week - 1, 0, -1))
    newest = next(window for window in mined if window.is_there)
    return newest.gate_instances()[: arm.platform.config.platform.measured_searches]
