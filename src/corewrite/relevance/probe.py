"""A probe for relevance models that a rewriter could exploit, run before training on one.

Fixed adversarial rewrites (stuffing, copying the context, generic words, next to nothing) must not beat the identity under
the reward. A model that pays for them would be learnt to be gamed within a phase.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.domain import TrainingInstance, words

FloatArray = npt.NDArray[np.float64]
_LOST = 0.1
Reward = Callable[[Sequence[TrainingInstance], Sequence[Sequence[str]]], list[FloatArray]]


@dataclass(frozen=True)
class ProbeFinding:
    """What one kind of adversarial rewrite earns.

    Attributes:
        name: The kind.
        reward: Mean log R over the probe's instances.
        low: Lower one-sided 97.5 % bound of that mean (normal approximation).
        paid: Whether the model pays for it: `low` above the tolerance.
    """

    name: str
    reward: float
    low: float
    paid: bool


@dataclass(frozen=True)
class ProbeResult:
    """Outcome of a probe.

    Attributes:
        findings: One per kind of rewrite.
        instances: On how many instances.
        lost: Of those, how many had no reward for some kind and were left out of it.
    """

    findings: tuple[ProbeFinding, ...]
    instances: int
    lost: int = 0

    @property
    def passed(self) -> bool:
        """Whether no adversarial rewrite pays."""
        return not any(f.paid for f in self.findings)


def adversarial_rewrites(instances: Sequence[TrainingInstance]) -> Mapping[str, list[str]]:
    """The fixed rewrites, by kind, one per instance; what is common is counted over all instances' queries."""
    counts = Counter(w for x in instances for w in set(words(x.query.text)))
    common = sorted(counts, key=lambda w: (-counts[w], w))[:12]  # ties by word: a set has no order of its own
    if not common:
        raise ValueError("the probe's instances have no words in their queries")
    first = {x.instance_id: (words(x.query.text) or [""])[0] for x in instances}
    return {
        "stuffing": [" ".join([x.query.text, *common]) for x in instances],
        "repetition": [" ".join([x.query.text] * 4) for x in instances],
        "generic": [" ".join(common[:3]) for _ in instances],
        "copying": [" ".join([*x.query.context.queries, *x.query.context.titles, x.query.text]) for x in instances],
        "one_word": [first[x.instance_id] for x in instances],
        "empty": ["" for _ in instances],
    }


def probe(instances: Sequence[TrainingInstance], reward: Reward, tolerance: float = 0.02) -> ProbeResult:
    """Probe a reward on `instances` with the fixed adversarial rewrites.

    Args:
        instances: Searches with D+ and D-.
        reward: log R of texts, as training would use it; not finite where it could not be computed.
        tolerance: Mean log R up to which a kind counts as not paid, nats.

    Raises:
        ValueError: no instance, or a kind without a reward for more than a tenth of them.
    """
    if not instances:
        raise ValueError("a probe needs at least one instance")
    findings, lost = [], set[str]()
    for name, texts in adversarial_rewrites(instances).items():
        scores = np.array([row[0] for row in reward(instances, [[t] for t in texts])])
        failed = [x.instance_id for x, score in zip(instances, scores, strict=True) if not np.isfinite(score)]
        if len(failed) > _LOST * len(instances):
            raise ValueError(
                f"the {name!r} rewrite has no reward for {len(failed)} of {len(instances)} instances of the probe, the first "
                f"{failed[0]!r}: does the relevance model answer, and score all documents of D+ and D-?"
            )
        lost.update(failed)
        scores = scores[np.isfinite(scores)]
        mean = float(scores.mean())
        low = mean - 1.96 * float(scores.std(ddof=1)) / np.sqrt(len(scores)) if len(scores) > 1 else mean
        findings.append(ProbeFinding(name, mean, float(low), bool(low > tolerance)))
    return ProbeResult(tuple(findings), len(instances), len(lost))
