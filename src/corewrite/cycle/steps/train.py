"""Train a candidate from the champion."""

from dataclasses import asdict

from corewrite.cycle.candidate import open_sampler, to_train, training_progress
from corewrite.cycle.context import CycleContext
from corewrite.cycle.mined_week import MinedWindow, with_documents
from corewrite.cycle.records import TRAIN, RankerHashes, TrainRecord
from corewrite.cycle.recovery import mitigated
from corewrite.cycle.steps.start_policy import prepare_start_policy
from corewrite.domain import Provenance
from corewrite.registry import JSON
from corewrite.rewriter import merged
from corewrite.training import train
from corewrite.version import VERSION


def train_candidate(cycle: CycleContext, window: MinedWindow, ranker: RankerHashes) -> str:
    """Train a candidate on the week's searches, under the mitigations of the latest REJECTs.

    Args:
        cycle: The cycle.
        window: The mined week.
        ranker: Relevance model and spec, which give the reward.

    Returns:
        Its hash in the registry.
    """
    return cycle.journal.once(TRAIN, lambda: _train(cycle, window, ranker))["policy"]


def _train(cycle: CycleContext, window: MinedWindow, ranker: RankerHashes) -> TrainRecord:
    config = cycle.config.pipeline
    instances = with_documents(window.instances(), cycle.documents)
    deployment = cycle.deployment(ranker.relevance, ranker.spec)
    provenance = Provenance(VERSION, window.span, deployment.spec.spec_hash, deployment.model_hash, cycle.config.seed).as_dict()
    policy = to_train(prepare_start_policy(cycle, window), config, cycle.config.seed)
    settings = mitigated(config.training, cycle.mitigations)
    with cycle.steps.step("train: semi-online MPO") as progress, open_sampler(config, policy) as engine:
        show, after_phase = training_progress(progress, settings.phases)
        report = train(
            policy,
            instances,
            deployment.reward,
            settings,
            cycle.folder.training,
            seed=cycle.week_seed,
            provenance=provenance,
            engine=engine,
            observe=after_phase,
            progress=show,
        )
    policy = merged(policy)
    about: dict[str, JSON] = {"provenance": provenance, "policy_hash": policy.policy_hash, "week": cycle.week}
    return {
        "policy": cycle.registry.save("policy", policy.save, about).hash,
        "provenance": provenance,
        "instances": len(instances),
        "settings": settings.model_dump(mode="json"),
        "training": {k: v for k, v in asdict(report).items() if k != "records"},
    }
