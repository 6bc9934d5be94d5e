"""From samples to scored candidates: deduplicate by cleaned text, add the identity, keep what could be scored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from corewrite.domain import TrainingInstance, normalise
from corewrite.rewriter import Rewrite, Rewriter, clean
from corewrite.training.config import ScoringConfig
from corewrite.training.pairs import ScoredCandidate
from corewrite.training.scoring import Key, Reward, score_texts


@dataclass(frozen=True)
class Scored:
    """A phase's rewrites as the record holds them; selection looks at nothing else.

    Attributes:
        policy_version: Of the policy that sampled them.
        candidates: Distinct candidates by instance id, the identity first where there is one.
        lost: Why, by the id of instances that were not scored.
        sampled: Facts about the samples and their scoring, for the record.
    """

    policy_version: str
    candidates: dict[str, list[ScoredCandidate]]
    lost: dict[str, str]
    sampled: dict[str, float]


def distinct_candidates(
    instance: TrainingInstance, rewrites: Sequence[Rewrite], policy: Rewriter, *, identity: bool
) -> list[ScoredCandidate]:
    """The identity (candidate N+1) and the distinct samples, not scored yet.

    Of equal texts the first well-formed one stands for all.
    """
    own = normalise(instance.query.text)
    found = {}
    if identity:
        ids, malformed = tuple(policy.template.encode_target(own)), clean(own).malformed
        found[own] = ScoredCandidate(own, ids, 0.0, malformed=malformed, identity=True, samples=0)
    for r in sorted(rewrites, key=lambda r: (r.malformed, not r.ended)):  # stable: sampling order within
        first = found.setdefault(r.text, ScoredCandidate(r.text, r.token_ids, 0.0, r.ended, r.malformed, samples=0))
        found[r.text] = replace(first, samples=first.samples + 1)
    return list(found.values())


def score_candidates(
    instances: Sequence[TrainingInstance],
    candidates: Sequence[Sequence[ScoredCandidate]],
    reward: Reward,
    config: ScoringConfig,
    *,
    version: str,
    known: Mapping[Key, float] | None = None,
    sampled: Mapping[str, float] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scored:
    """Candidates with their log R.

    A sample with nothing usable in it is no rewrite, which ranks as the identity does: it gets the identity's reward, and being
    malformed can never be chosen. The identity's is the reward's own affair: `FusedReward` gives it exactly 0.
    """
    served = [[c.text or normalise(x.query.text) for c in row] for x, row in zip(instances, candidates, strict=True)]
    scores = score_texts(instances, served, reward, config, known, progress)
    scored = {
        x.instance_id: [replace(c, log_reward=scores.values[x.instance_id, text]) for c, text in zip(row, texts, strict=True)]
        for x, row, texts in zip(instances, candidates, served, strict=True)
        if x.instance_id not in scores.lost
    }
    facts = {**(sampled or {}), "reward_calls": scores.calls, "reward_retries": scores.retries}
    return Scored(version, scored, scores.lost, facts)
