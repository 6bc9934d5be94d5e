"""Qdrant: the whole cascade as one nested Query API request with a formula per stage."""

from collections.abc import Mapping
from typing import Any

from corewrite.fusion.compilers.features import FLOAT_RANGE, CompileError, Features, check_range, checked_features
from corewrite.fusion.compilers.placeholders import placeholder
from corewrite.fusion.program import Call, Expression, Factor, Number, Program, Signal, programs
from corewrite.fusion.spec import FusionSpec

Json = Any
_SMALLEST, _LARGEST = 1.1754944e-38, 3.4028234e38
_WIDEST = 1e9


def query_body(spec: FusionSpec, given: Mapping[str, str]) -> dict[str, Any]:
    """The body of `POST collections/NAME/points/query`.

    Finerank's candidates are the fused top K and the original top P of rawrank, as in the embedded cascade.

    Args:
        spec: The spec.
        given: Payload key by `query.NAME` or `rewrite.NAME`. A signal without one is the score of a search in the
            vector NAME by the query's or the rewrite's own vector, exact on the candidates.

    Raises:
        CompileError: see `compile_spec`; here also a number of the spec beyond single precision, in which Qdrant
            reads it, or two of a clip that are too far apart.
    """
    check_range(spec, "Qdrant", FLOAT_RANGE)
    stages = programs(spec)
    features = checked_features(stages, given, "prior")
    recall = [placeholder("recall.query")]
    both = [*recall, placeholder("recall.rewrite")] if spec.recall.use_rewrite and spec.recall.rewrite_candidates else recall
    most = 2 * spec.recall.original_candidates + (len(both) - 1) * spec.recall.rewrite_candidates
    rawrank, finerank = stages["rawrank"], stages["finerank"]
    fused = _stage(rawrank, features, both, most, spec.depths.finerank)
    original = _stage(rawrank.without_rewrite, features, recall, most, spec.depths.protected)
    return _stage(finerank, features, [fused, original], most, placeholder("limit"))


def _stage(program: Program, features: Features, candidates: list[Json], most: int, limit: int | str) -> dict[str, Any]:
    """Rank `candidates`, at most `most`, by the stage's formula and keep `limit`."""
    searched = [s for s in program.signals if features.of(s) is None]
    # A search over a prefetch scores all of it, exactly; the formula reads the scores by their place here.
    prefetch = [
        {"prefetch": candidates, "query": placeholder(f"{s.side}.{s.name}"), "using": s.name, "limit": most} for s in searched
    ]
    variables = {s: f"$score[{searched.index(s)}]" if s in searched else str(features.of(s)) for s in program.signals}
    flags = {f.signal: f"present_{program.stage}_{f.signal}" for f in program.factors if f.kind == "rewrite"}
    query = {
        "formula": {"mult": [_factor(f, variables, flags) for f in program.factors] or [1.0]},
        # No document has these keys: the default is what the request says of all documents.
        "defaults": {flag: placeholder(f"present.{program.stage}.{signal}") for signal, flag in flags.items()},
    }
    return {"prefetch": prefetch or candidates, "query": query, "limit": limit}


def _factor(factor: Factor, variables: Mapping[Signal, str], flags: Mapping[str, str]) -> Json:
    exponent: Json = float(factor.exponent.value)
    if factor.kind == "rewrite":
        # 1 or 0 times the exponent: x to the power of 0 is exactly 1.
        exponent = {"mult": [exponent, flags[factor.signal]]}
    return {"pow": {"base": _expression(factor.base, variables), "exponent": exponent}}


def _expression(expression: Expression, variables: Mapping[Signal, str]) -> Json:
    match expression:
        case Number():
            return _number(expression)
        case Signal():
            return variables[expression]
        case Call("divide", left, right):
            return {"div": {"left": _expression(left, variables), "right": _expression(right, variables)}}
        case Call("max", left, right):
            return _max(_expression(left, variables), _expression(right, variables))
        case Call("min", Call("max", x, Number() as low), Number() as high):
            return _clip(_expression(x, variables), low, high)
        case _:
            raise AssertionError(f"no {expression}: the spec has no bare min")


def _clip(x: Json, low: Number, high: Number) -> Json:
    """(low + high + |x - low| - |x - high|) / 2, in the double precision in which Qdrant evaluates."""
    if high.value > _WIDEST * low.value:
        raise CompileError(
            f"{high.name} {high.value} is more than {_WIDEST:g} times {low.name} {low.value}: Qdrant has no exact clip, and "
            "this one would lose the digits of small values; bring the two nearer"
        )
    a, b = _number(low), _number(high)
    return {"mult": [0.5, {"sum": [a, b, _distance(x, a), {"neg": _distance(x, b)}]}]}


def _max(a: Json, b: Json) -> Json:
    """(a + b + |a - b|) / 2: formulas of servers before 1.20 have no max, min or clip."""
    return {"mult": [0.5, {"sum": [a, b, _distance(a, b)]}]}


def _distance(a: Json, b: Json) -> Json:
    return {"abs": {"sum": [a, {"neg": b}]}}


def _number(number: Number) -> float:
    if not _SMALLEST <= number.value <= _LARGEST:
        raise CompileError(f"{number.name} {number.value} is beyond single precision, in which Qdrant reads numbers")
    return float(number.value)
