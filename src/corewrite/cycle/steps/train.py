"""Train a candidate from the champion."""

from dataclasses import asdict

from corewrite.cycle.context import CycleContext
from corewrite.cycle.mined_week import MinedWindow, with_documents
from corewrite.cycle.records import TRAIN, RankerHashes, TrainRecord
from corewrite.cycle.recovery import mitigated
from corewrite.cycle.steps.gate_searches import protected_words
from corewrite.cycle.steps.start_policy import prepare_start_policy
from corewrite.cycle.training_run import run_training
from corewrite.domain import Provenance
from corewrite.registry import JSON
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
    start = prepare_start_policy(cycle, window, deployment)
    settings = mitigated(config.training, cycle.mitigations)
    with cycle.steps.step("train: semi-online MPO") as progress:
        policy, report = run_training(
            start,
            instances,
            deployment.reward,
            config.model_copy(update={"training": settings}),
            cycle.folder.training,
            seed=cycle.week_seed,
            adapter_seed=cycle.config.seed,
            provenance=provenance,
            protected_words=protected_words(cycle.mined_windows(), cycle.documents, cycle.config.seed),
            progress=progress,
        )
    policy = cycle.parts.export(policy)
    about: dict[str, JSON] = {"provenance": provenance, "policy_hash": policy.policy_hash, "week": cycle.week}
    return {
        "policy": cycle.registry.save("policy", policy.save, about).hash,
        "provenance": provenance,
        "instances": len(instances),
        "settings": settings.model_dump(mode="json"),
        "training": {k: v for k, v in asdict(report).items() if k != "records"},
    }
