"""Top-k / bottom-k: which of an instance's scored candidates become preference pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

from corewrite.domain import sha256_text


@dataclass(frozen=True)
class ScoredCandidate:
    """A distinct rewrite of one instance.

    Attributes:
        text: Cleaned text.
        token_ids: The very ids the sampler generated, end-of-sequence included where it was reached.
        log_reward: log R.
        ended: Whether the end-of-sequence token was reached.
        malformed: Whether cleaning had to change the text.
        identity: Whether it is the query itself, candidate N+1.
        samples: How many of the N samples had this text.
    """

    text: str
    token_ids: tuple[int, ...]
    log_reward: float
    ended: bool = True
    malformed: bool = False
    identity: bool = False
    samples: int = 1

    @property
    def may_be_chosen(self) -> bool:
        """A rewrite to be learnt must help or be neutral, end by itself, and be what would be served."""
        return self.log_reward >= 0 and self.ended and not self.malformed


@dataclass(frozen=True)
class Pair:
    """A preference.

    Attributes:
        chosen, rejected: The better and the worse candidate.
    """

    chosen: ScoredCandidate
    rejected: ScoredCandidate

    @property
    def gap(self) -> float:
        """Difference in log R, nats."""
        return self.chosen.log_reward - self.rejected.log_reward


def select_pairs(
    candidates: Sequence[ScoredCandidate], k: int, minimum_gap: float, *, shorter_first: bool = True
) -> list[Pair]:
    """Pair the i-th best candidate with the i-th worst, i up to k_eff = min(k, floor(distinct / 2)).

    Ties in reward break by text hash; but of the best, those that may be chosen come first, and of these the fewer tokens: what
    adds nothing, a repeated word say, is not learnt. Dropped are pairs whose chosen may not be chosen, whose gap is under
    `minimum_gap`, or whose token ids differ in the end-of-sequence token only.

    Args:
        candidates: Candidates of one instance with distinct texts.
        k: Pairs at most.
        minimum_gap: g_min, nats.
        shorter_first: Break ties of the best so; False: by text hash alone, as versions before did.

    Raises:
        ValueError: two candidates share a text.
    """
    if len({c.text for c in candidates}) != len(candidates):
        raise ValueError("candidates of an instance must have distinct texts: deduplicate first")
    most = min(k, len(candidates) // 2)
    by_hash = sorted(candidates, key=lambda c: (-c.log_reward, sha256_text(c.text)))
    best = by_hash[:most]
    if shorter_first:  # stable
        best = sorted(by_hash, key=lambda c: (-c.log_reward, not c.may_be_chosen, len(c.token_ids)))[:most]
    worst = [c for c in reversed(by_hash) if not any(c is b for b in best)][:most]
    pairs = [Pair(b, w) for b, w in zip(best, worst, strict=True)]
    return [p for p in pairs if p.chosen.may_be_chosen and p.gap >= minimum_gap and not _nearly_identical(p)]


def _nearly_identical(pair: Pair) -> bool:
    a, b = pair.chosen.token_ids, pair.rejected.token_ids
    return a == b or a[:-1] == b or a == b[:-1]
