"""Base classes of checks: means over queries, means over a policy's texts, and metrics of a set of rewrites."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from corewrite.domain import plugins
from corewrite.gate.bounds import Bounds, bounds
from corewrite.gate.evaluation import Evaluation, NotApplicableError, ServedTexts
from corewrite.gate.mitigations import Mitigation, current_mitigation
from corewrite.gate.ratio_of_sums import EVENT, UNLIMITED, GainRange, RatioOfSums
from corewrite.gate.resampling import Resampling

FloatArray = npt.NDArray[np.float64]
Kind = Literal["reward", "guardrail", "not lower", "report", "hard"]
_EARLIER_KIND = "after holds"


class CheckMargins(Protocol):
    """Margins by check."""

    def of(self, check: str) -> float:
        """Margin of the check called so, in the units of its metric."""
        ...


class CheckSettings(Protocol):
    """What checks read of `GateConfig`, which itself knows all checks by name."""

    @property
    def margins(self) -> CheckMargins:
        """By check."""
        ...

    @property
    def harm_threshold(self) -> float:
        """Loss of judge nDCG@10 from which on a query counts as harmed."""
        ...

    @property
    def word_limit(self) -> int:
        """Words above which a rewrite counts as malformed."""
        ...

    @property
    def latency_ratio(self) -> float:
        """How many times the champion's p99 latency the candidate's may be."""
        ...

    @property
    def minimum_effective_users(self) -> int:
        """Users below which nothing is concluded."""
        ...

    @property
    def required_checks(self) -> tuple[str, ...]:
        """Checks without whose data the gate holds."""
        ...

    def too_few(self, queries: npt.NDArray[np.float64]) -> str | None:
        """How many users there are and are needed, in words; None where there are enough."""
        ...


@dataclass(frozen=True)
class Estimate:
    """The result of a check's comparison.

    Attributes:
        candidate: The metric of the candidate.
        baseline: The metric of what it is compared with.
        difference: D, higher is better.
        bounds: Of the difference, with the p-value of H0: D is at least -margin.
        n: On how many queries.
        note: A remark for the reader; may be empty.
    """

    candidate: float
    baseline: float
    difference: float
    bounds: Bounds
    n: int
    note: str = ""

    def checked(self) -> "Estimate":
        """This.

        Raises:
            ValueError: one of its numbers is not finite; compared with a margin, NaN would be a failure.
        """
        limits = self.bounds
        numbers = (self.candidate, self.baseline, self.difference, limits.low, limits.high, limits.p_value)
        if not np.isfinite(numbers).all():
            raise ValueError(f"it came out as {', '.join(f'{x:.4g}' for x in numbers)}: not finite numbers")
        return self


@dataclass(frozen=True)
class Check(ABC):
    """One question to the candidate.

    Attributes:
        name: Unique.
        earlier_name: What versions before called it: margins frozen by them are read under it.
        question: What it asks, for a reader of the report.
        kind: A "reward" must rise; a "guardrail" must not fall by the margin; "not lower" is what is asked of the reward
            where something else speaks for the candidate; a "report" decides nothing; "hard" refuses before any comparison.
        baseline: What the candidate is compared with; "zero" where the margin is a limit on the metric itself.
        sign: 1 where a higher metric is better, -1 where a lower one is.
        needs: Fields of the evaluation without which it cannot be answered.
        optional: Whether the settings require it only where they name it: nothing in a cycle feeds it, or a required check
            has its data.
        excused_by: Another check, whose L above 0 lets this one pass: what a change of the texts' form is feared for are worse
            results, and an independent judge that finds better ones has the last word on it. For a "reward": whose L above 0
            does in place of its rise, if the "not lower" checks pass.
        default_margin: m where the settings say nothing, in the metric's own units: a business limit, what a
            search team would accept to lose for a gain in reward. None where the candidate must be better.
        mitigation: What the next training does where this check fails: "stronger_kl" to the reference, "length_control",
            "wider_pair_margin" (a larger gap in reward within a pair), "higher_sft_weight", "lower_rate" of learning, or
            "none".
        config: Settings of the gate.
    """

    name: ClassVar[str]
    earlier_name: ClassVar[str | None] = None
    question: ClassVar[str]
    kind: ClassVar[Kind] = "guardrail"
    baseline: ClassVar[str] = "champion"
    sign: ClassVar[Literal[1, -1]] = 1
    needs: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[bool] = False
    excused_by: ClassVar[str | None] = None
    default_margin: ClassVar[float | None] = None
    mitigation: ClassVar[Mitigation] = "none"
    config: CheckSettings

    @property
    def margin(self) -> float:
        """m: how far the difference may be below 0, in the metric's own units."""
        return 0.0 if self.default_margin is None else self.config.margins.of(self.name)

    def compute(self, evaluation: Evaluation, resampling: Resampling) -> Estimate:
        """Compare candidate and baseline.

        Raises:
            NotGivenError: data the check needs are missing.
            NotApplicableError: there can be no such data, or too few users have any.
            ValueError: they are not finite, or the metric is undefined on them.
        """
        for name in self.needs:
            evaluation.given(name)
        return self._compare(evaluation, resampling)

    @abstractmethod
    def _compare(self, evaluation: Evaluation, resampling: Resampling) -> Estimate: ...


class _Checks(Mapping[str, type[Check]]):
    """Registered checks; those of installed packages join them when the checks are first read.

    Not when this module is imported: their modules import it.
    """

    def __init__(self) -> None:
        self.registered: dict[str, type[Check]] = {}
        self._complete = False

    def __getitem__(self, name: str) -> type[Check]:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, type[Check]]:
        if not self._complete:
            for name in plugins.plugin_names(plugins.CHECKS):
                check = plugins.load_plugin(plugins.CHECKS, name)
                if not (isinstance(check, type) and issubclass(check, Check)):
                    raise ValueError(f"entry point {name!r} in {plugins.CHECKS!r} must name a subclass of corewrite.gate.Check")
                if check.name != name:
                    raise ValueError(
                        f"entry point {name!r} in {plugins.CHECKS!r} names a check called {check.name!r}: rename it"
                    )
                register(check)
            self._complete = True
        return self.registered


_CHECKS = _Checks()
CHECKS: Mapping[str, type[Check]] = _CHECKS
"""All checks by name, in the order of the report; those of installed packages (entry points `corewrite.checks`) last.

Raises:
    ValueError: when it is read: one of a package cannot be imported, is no check, or has a name that is taken.
"""

AnyCheck = TypeVar("AnyCheck", bound=type[Check])


def register(check: AnyCheck) -> AnyCheck:
    """Class decorator: make the gate ask this check, and the settings know its margin.

    Warns:
        FutureWarning: its kind or mitigation has the name of an earlier version.

    Raises:
        ValueError: another check has its name.
    """
    if (kind := str(check.kind)) == _EARLIER_KIND:
        warnings.warn(
            f"check {check.name!r}: kind {kind!r} is 'not lower' now, which the next version asks for",
            FutureWarning,
            stacklevel=2,
        )
        check.kind = "not lower"
    if (now := current_mitigation(check.mitigation)) != check.mitigation:
        warnings.warn(
            f"check {check.name!r}: mitigation {check.mitigation!r} is {now!r} now, which the next version asks for",
            FutureWarning,
            stacklevel=2,
        )
        check.mitigation = cast(Mitigation, now)
    if _CHECKS.registered.setdefault(check.name, check) is not check:
        raise ValueError(f"two checks are called {check.name!r}: rename {check.__qualname__}")
    return check


class MeanCheck(Check):
    """A mean over queries; the difference is paired by query.

    Attributes:
        gain_range: What a query's part in the difference can be; None: without limits, and an event where it is never
            anything but 1, 0 or -1.
    """

    gain_range: ClassVar[GainRange | None] = None

    @abstractmethod
    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """The metric of candidate and baseline on each query, both [queries]; NaN in both where none counts."""

    def _compare(self, evaluation: Evaluation, resampling: Resampling) -> Estimate:
        """Compare the means, with the bounds of `RatioOfSums`."""
        candidate, baseline = self.per_query(evaluation)
        counted = ~(np.isnan(candidate) & np.isnan(baseline))
        gain = np.where(counted, self.sign * (candidate - baseline), 0.0) + 0.0  # Adding 0.0 turns -0.0 into 0.0.
        sums, queries = np.split(resampling.per_user(np.stack([gain, counted.astype(np.float64)], axis=1)), 2, axis=1)
        if not counted.all() and (few := self.config.too_few(queries[:, 0])):
            raise NotApplicableError(f"{int(counted.sum())} queries can answer it, of {few}")
        most = self.gain_range_of(evaluation) or (EVENT if np.isin(gain, (-1, 0, 1)).all() else UNLIMITED)
        found = RatioOfSums(sums, queries, most)
        (limits,) = found.bounds(self.margin)
        means = float(candidate[counted].mean()), float(baseline[counted].mean())
        return Estimate(*means, float(found.mean[0]), limits, int(counted.sum()), self.note(evaluation))

    def gain_range_of(self, evaluation: Evaluation) -> GainRange | None:
        """What a query's part can be with these data: `gain_range`, where it does not depend on them."""
        return self.gain_range

    def note(self, evaluation: Evaluation) -> str:
        """A remark for the reader; may be empty."""
        return ""


class TextCheck(MeanCheck):
    """A mean over queries of a number that a policy's text has by itself, the same for candidate and champion."""

    @abstractmethod
    def of(self, served: ServedTexts, evaluation: Evaluation) -> FloatArray:
        """The number of each query's text, [queries]."""

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """The numbers of both sides."""
        return self.of(evaluation.candidate_served, evaluation), self.of(evaluation.champion_served, evaluation)


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

    def most_frequent(self) -> str:
        """The most frequent item; of equals the first in alphabetical order.

        Raises:
            ValueError: there is no item.
        """
        counts = np.bincount(self.code)
        return min(self.names[i] for i in np.flatnonzero(counts == counts.max()))


class SetCheck(Check):
    """A metric of the set of rewrites: a function of how often each item (a bigram, a text) is in it."""

    @abstractmethod
    def items(self, served: ServedTexts) -> Sequence[Sequence[str]]:
        """Items that each query brings in, under one policy."""

    @abstractmethod
    def share(self, counts: FloatArray) -> float:
        """The metric, from how often each item is in the set."""

    def _compare(self, evaluation: Evaluation, resampling: Resampling) -> Estimate:
        """Compare the sets; the standard error is that of half-samples of users, the same for both."""
        sides = evaluation.candidate_served, evaluation.champion_served
        candidate, champion = (ItemCounts.of(self.items(side)) for side in sides)
        everyone = np.ones(len(evaluation), np.bool_)
        values = self.share(candidate.within(everyone)), self.share(champion.within(everyone))
        error = resampling.half_sample_error(
            lambda mask: self.share(candidate.within(mask)) - self.share(champion.within(mask))
        )
        difference = self.sign * (values[0] - values[1]) + 0.0  # Adding 0.0 turns -0.0 into 0.0.
        limits = bounds(difference, error, resampling.effective_users, self.margin)
        return Estimate(*values, difference, limits, len(evaluation), self.note(candidate))

    def note(self, candidate: ItemCounts) -> str:
        """A remark on the candidate's set."""
        return ""
