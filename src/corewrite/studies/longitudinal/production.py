"""The deployment and policy that serve each arm of a longitudinal simulation in a week."""

import json
from dataclasses import dataclass

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.load import load_deployment, load_policy
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Catalogue
from corewrite.domain.traffic_split import HOLDBACK
from corewrite.rewriter import Rewriter
from corewrite.storage.journal import write_json
from corewrite.studies.longitudinal.layout import ARMS, LongitudinalLayout


@dataclass(frozen=True, eq=False)
class Production:
    """What serves an arm in a week.

    Attributes:
        deployment: Relevance model and spec.
        policy: The rewriter, or None.
        name: Hash of the policy, "" without one.
        key: Equal where two arms serve the same.
    """

    deployment: Deployment
    policy: Rewriter | None
    name: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Of policy, relevance model and spec."""
        return self.name, self.deployment.model_hash, self.deployment.spec.spec_hash


def load_production(layout: LongitudinalLayout, catalogue: Catalogue, week: int) -> dict[str, Production]:
    """What serves the arms in a week, pinned before the first search: a run cut off must not see the week's own outcome.

    The ranker is one team's work: the arms without cycles have the weekly arm's.
    """
    pinned = layout.production(week)
    if not pinned.is_file():
        write_json(pinned, {arm: _in_production(layout, arm) for arm in ARMS})
    found = {}
    for arm, triple in json.loads(pinned.read_text("utf-8")).items():
        registry, name = layout.registry(arm), triple["policy"]
        deployment = load_deployment(registry, RankerOpener(RankerSettings(), catalogue), triple["relevance"], triple["spec"])
        found[arm] = Production(deployment, load_policy(registry, name) if name else None, name)
    return found


def _in_production(layout: LongitudinalLayout, arm: str) -> dict[str, str]:
    registry = layout.registry(arm)
    champion = registry.champion()
    assert champion is not None  # put there before the first week
    policy = "" if arm == HOLDBACK else champion.policy
    if arm == "never":
        policy = next(d.candidate.policy for d in registry.decisions() if d.verdict == "promote" and d.candidate)
    return {"policy": policy, "relevance": champion.relevance, "spec": champion.spec}
