"""What a check is, and its two families: means over queries, and metrics of a set."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from corewrite.gate.config import GateConfig
from corewrite.gate.evaluation import Evaluation
from corewrite.gate.resampling import Bounds, Resampling, bounds

FloatArray = npt.NDArray[np.float64]
Kind = Literal["reward", "guardrail", "report"]


@dataclass(frozen=True)
class Estimate:
    """What a check found.

    Attributes:
        candidate: The metric of the candidate.
        baseline: The metric of what it is compared with.
        difference: D, higher is better.
        bounds: Of the difference, with the p-value of H0: D is at least -margin.
        n: On how many queries.
        note: What a reader should know besides; may be empty.
    """

    candidate: float
    baseline: float
    difference: float
    bounds: Bounds
    n: int
    note: str = ""


@dataclass(frozen=True)
class Check(ABC):
    """One question to the candidate.

    Attributes:
        name: Unique.
        question: In words, for a reader of the report.
        kind: "reward" must rise, a "guardrail" must not fall by the margin, a "report" decides nothing.
        baseline: What the candidate is compared with.
        sign: 1 where a higher metric is better, -1 where a lower one is.
        config: Settings of the gate.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    kind: ClassVar[Kind] = "guardrail"
    baseline: ClassVar[str] = "champion"
    sign: ClassVar[Literal[1, -1]] = 1
    config: GateConfig

    @property
    def margin(self) -> float:
        """m: how far the difference may be below 0, in the metric's own units."""
        return float(getattr(self.config.margins, self.name))

    @abstractmethod
    def compute(self, evaluation: Evaluation, resampling: Resampling) -> Estimate:
        """Compare candidate and baseline.

        Raises:
            ValueError: data the check needs are missing, or the metric is undefined on them.
        """


class MeanCheck(Check):
    """A mean over queries; the difference is paired by query."""

    @abstractmethod
    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """The metric of candidate and baseline on each query, both [queries]."""

    def compute(self, evaluation: Evaluation, resampling: Resampling) -> Estimate:
        """Compare the means; the standard error is that of the Poisson bootstrap over users."""
        candidate, baseline = self.per_query(evaluation)
        gain = self.sign * (candidate - baseline) + 0.0  # Adding 0.0 turns -0.0 into 0.0.
        (difference,), (error,) = resampling.ratio_of_sums(gain[:, None], np.ones((len(gain), 1)))
        limits = bounds(float(difference), float(error), resampling.users, self.margin)
        return Estimate(float(candidate.mean()), float(baseline.mean()), float(difference), limits, len(gain))


@dataclass(frozen=True, eq=False)
class ItemCounts:
    """How often each item is in a set of queries.

    Attributes:
        names: The distinct items.
        code: Place in `names` of every item that a query brings in, repeats kept, int64 [items].
        query: Whose it is, int64 [items].
    """

    names: list[str]
    code: npt.NDArray[np.int64]
    query: npt.NDArray[np.int64]

    @classmethod
    def of(cls, items: Sequence[Sequence[str]]) -> "ItemCounts":
        """Count the items of each query, [queries]."""
        codes: dict[str, int] = {}
        code = np.array([codes.setdefault(item, len(codes)) for item in chain.from_iterable(items)], np.int64)
        query = np.repeat(np.arange(len(items)), [len(row) for row in items])
        return cls(list(codes), code, query)

    def within(self, mask: npt.NDArray[np.bool_]) -> FloatArray:
        """Counts within the queries of `mask`, bool [queries]; float64 [names]."""
        return np.bincount(self.code[mask[self.query]], minlength=len(self.names)).astype(np.float64)

    def commonest(self) -> str:
        """The item there is most of.

        Raises:
            ValueError: there is no item.
        """
        return self.names[int(np.bincount(self.code).argmax())]


class SetCheck(Check):
    """A metric of the set of rewrites: a function of how often each item (a bigram, a text) is in it."""

    @abstractmethod
    def items(self, evaluation: Evaluation) -> tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]]:
        """Items that each query brings in, under candidate and champion."""

    @abstractmethod
    def share(self, counts: FloatArray) -> float:
        """The metric, from how often each item is in the set."""

    def compute(self, evaluation: Evaluation, resampling: Resampling) -> Estimate:
        """Compare the sets; the standard error is that of half-samples of users, the same for both."""
        candidate, champion = map(ItemCounts.of, self.items(evaluation))
        everyone = np.ones(len(evaluation), np.bool_)
        values = self.share(candidate.within(everyone)), self.share(champion.within(everyone))
        error = resampling.half_sample_error(
            lambda mask: self.share(candidate.within(mask)) - self.share(champion.within(mask))
        )
        difference = self.sign * (values[0] - values[1]) + 0.0  # Adding 0.0 turns -0.0 into 0.0.
        limits = bounds(difference, error, resampling.users, self.margin)
        return Estimate(*values, difference, limits, len(evaluation), self.note(candidate))

    def note(self, candidate: ItemCounts) -> str:
        """What to say of the candidate's set."""
        return ""
