"""Rows of the gradient pass: a prompt with all the responses of its pairs, and the plan of steps over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from corewrite.rewriter import Rewriter, length_buckets, on_device
from corewrite.training.pairs import Pair


@dataclass(frozen=True)
class Row:
    """The preferences of one instance.

    Attributes:
        instance_id: Whose.
        prompt: Prompt ids.
        pairs: At least one.
    """

    instance_id: str
    prompt: tuple[int, ...]
    pairs: tuple[Pair, ...]

    @property
    def responses(self) -> list[tuple[int, ...]]:
        """Token ids of the chosen responses, then of the rejected ones."""
        return [p.chosen.token_ids for p in self.pairs] + [p.rejected.token_ids for p in self.pairs]

    @property
    def tokens(self) -> int:
        """Tokens of the packed row; the last of a response is no input."""
        return len(self.prompt) + sum(len(y) - 1 for y in self.responses)

    @property
    def plain_tokens(self) -> int:
        """Padded tokens of the row's plain sequences."""
        responses = self.responses
        return len(responses) * (len(self.prompt) + max(map(len, responses)) - 1)


def row_log_probs(policy: Rewriter, rows: Sequence[Row], *, width_multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities of the chosen and of the rejected responses, row by row: two tensors [pairs].

    Packed where the model's attention allows it (`Rewriter.paths`), and padded to a multiple of so many tokens.
    """
    total = policy.log_probs([row.prompt for row in rows], [row.responses for row in rows], width_multiple=width_multiple).sum(
        1
    )
    chosen = np.concatenate([np.repeat([True, False], len(row.pairs)) for row in rows])
    return total[on_device(chosen.nonzero()[0], total.device)], total[on_device((~chosen).nonzero()[0], total.device)]


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        micro_batches: Numbers of the rows of each forward pass, of similar length.
        pairs: Pairs in all, over which the loss is averaged.
    """

    micro_batches: tuple[tuple[int, ...], ...]
    pairs: int


def plan_steps(
    rows: Sequence[Row], pairs_per_step: int, budget: int, *, seed: int, phase: int, packed: bool = True
) -> list[Step]:
    """One pass over the rows in random order, cut into steps.

    Args:
        rows: Preferences of a phase.
        pairs_per_step: Pairs of a step: rows are added until there are so many.
        budget: Padded tokens of a micro-batch at most.
        seed, phase: Key of the order.
        packed: Whether the model's rows are packed (`Rewriter.paths`).
    """
    tokens = [row.tokens if packed else row.plain_tokens for row in rows]
    steps: list[Step] = []
    members: list[int] = []
    pairs = 0
    for i in np.random.default_rng([seed, phase, 71]).permutation(len(rows)).tolist():
        members.append(i)
        pairs += len(rows[i].pairs)
        if pairs >= pairs_per_step:
            steps.append(_step(tokens, members, pairs, budget))
            members, pairs = [], 0
    if members:
        steps.append(_step(tokens, members, pairs, budget))
    return steps


def _step(tokens: Sequence[int], members: Sequence[int], pairs: int, budget: int) -> Step:
    buckets = length_buckets([tokens[i] for i in members], budget)
    return Step(tuple(tuple(members[i] for i in bucket) for bucket in buckets), pairs)
