"""The spec as expressions: what all compilers walk, so that none of them holds a formula of its own."""

import math
from dataclasses import dataclass
from typing import Literal

from corewrite.fusion.spec import FusionSpec, OriginalSignal, RewriteSignal, StageSpec

Side = Literal["query", "rewrite"]


@dataclass(frozen=True)
class Number:
    """A number of the spec.

    Attributes:
        name: Which: `FACTOR_FIELD`, unique within the stage.
        value: The number.
    """

    name: str
    value: float


@dataclass(frozen=True)
class Signal:
    """A signal of the document, under the query or under the rewrite."""

    name: str
    side: Side


@dataclass(frozen=True)
class Call:
    """An operation on two expressions."""

    operator: Literal["max", "min", "divide"]
    left: "Expression"
    right: "Expression"


Expression = Number | Signal | Call


@dataclass(frozen=True)
class Factor:
    """base ** exponent; a rewrite factor is exactly 1 for all documents where its request has no such signal.

    Attributes:
        kind: original, or rewrite: then a flag of the request says whether it is there.
        signal: Name of the signal.
        base: The clipped signal or ratio, above 0 for any finite signal.
        exponent: The exponent.
    """

    kind: Literal["original", "rewrite"]
    signal: str
    base: Expression
    exponent: Number

    @property
    def name(self) -> str:
        """`KIND_SIGNAL`."""
        return f"{self.kind}_{self.signal}"


@dataclass(frozen=True)
class Program:
    """One rank stage: the score of a document is the product of the factors.

    Attributes:
        stage: Name of the stage.
        factors: The factors, original ones first, in the order of the spec.
    """

    stage: str
    factors: tuple[Factor, ...]

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What the factors read, each once: under the query first, then under the rewrite."""
        read = dict.fromkeys(s for f in self.factors for s in collect_signals(f.base))
        return tuple(sorted(read, key=lambda s: s.side == "rewrite"))

    @property
    def without_rewrite(self) -> "Program":
        """The same with original factors only."""
        return Program(self.stage, tuple(f for f in self.factors if f.kind == "original"))


def collect_signals(expression: Expression) -> tuple[Signal, ...]:
    """The signals an expression reads, left to right."""
    match expression:
        case Signal():
            return (expression,)
        case Call(_, left, right):
            return collect_signals(left) + collect_signals(right)
        case Number():
            return ()


def programs(spec: FusionSpec) -> dict[str, Program]:
    """The rank stages of a spec by name."""
    return {name: _program(name, stage) for name, stage in spec.stages.items()}


def log_range(stage: StageSpec) -> tuple[float, float]:
    """Lowest and highest log that the product of any of the stage's factors can have."""
    low = [i.exponent * math.log(i.eps) for i in stage.original] + [j.exponent * math.log(j.lo) for j in stage.rewrite]
    high = [i.exponent * math.log(i.top) for i in stage.original] + [j.exponent * math.log(j.hi) for j in stage.rewrite]
    return sum(min(0.0, x) for x in low), sum(max(0.0, x) for x in high)


def _program(name: str, stage: StageSpec) -> Program:
    return Program(name, (*map(_original, stage.original), *map(_rewrite, stage.rewrite)))


def _original(i: OriginalSignal) -> Factor:
    def number(field: str, value: float) -> Number:
        return Number(f"original_{i.signal}_{field}", value)

    base = _clip(Signal(i.signal, "query"), number("eps", i.eps), number("top", i.top))
    return Factor("original", i.signal, base, number("exponent", i.exponent))


def _rewrite(j: RewriteSignal) -> Factor:
    def number(field: str, value: float) -> Number:
        return Number(f"rewrite_{j.signal}_{field}", value)

    eps = number("eps", j.eps)
    # Unmatched is 0 or anything else below eps: the floor, as in `evaluate_stage`. Absent is the flag's business.
    new = Call("max", Signal(j.signal, "rewrite"), eps)
    own = Call("max", Signal(j.signal, "query"), eps) if j.n is None else number("n", j.n)
    base = _clip(Call("divide", new, own), number("lo", j.lo), number("hi", j.hi))
    return Factor("rewrite", j.signal, base, number("exponent", j.exponent))


def _clip(x: Expression, low: Number, high: Number) -> Expression:
    return Call("min", Call("max", x, low), high)
