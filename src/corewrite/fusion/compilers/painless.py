"""What Elasticsearch and OpenSearch share: a search body with a Painless script per stage, the spec's numbers in params."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from corewrite.fusion.compilers.features import FLOAT_RANGE, Features, check_range, checked_features
from corewrite.fusion.compilers.placeholders import placeholder
from corewrite.fusion.program import Call, Expression, Factor, Number, Program, Signal, programs
from corewrite.fusion.spec import FusionSpec

_CLIP = "double clip(double x, double low, double high) { return Math.min(Math.max(x, low), high); }"
_PARAMETER = re.compile(r"\bparams\.([A-Za-z_][A-Za-z0-9_]*)")


def painless_body(spec: FusionSpec, given: Mapping[str, str], engine: str) -> dict[str, Any]:
    """The search body: rawrank scores what matches, finerank rescores the head, every factor is a script field.

    Args:
        spec: The spec.
        given: Painless expression by `query.NAME` or `rewrite.NAME`. A signal without one comes with the request, as a
            map from document id to number.
        engine: The engine's name, for messages.

    Raises:
        CompileError: see `compile_spec`.
    """
    check_range(spec, engine, FLOAT_RANGE)
    stages = programs(spec)
    features = checked_features(stages, given, "doc['prior'].value")
    scripts = {name: _script(spec, p, p.factors, features) for name, p in stages.items()}
    fields = {
        f"{name}.{f.kind}.{f.signal}": {"script": _script(spec, p, [f], features)}
        for name, p in stages.items()
        for f in p.factors
    }
    return {
        "query": {
            "script_score": {"query": {"bool": {"should": placeholder("recall")}}, "script": scripts["rawrank"]},
        },
        "rescore": {
            # As many as finerank gets at most in the embedded cascade: the fused top K and the original top P.
            "window_size": spec.depths.finerank + spec.depths.protected,
            "query": {
                "query_weight": 0.0,
                "rescore_query_weight": 1.0,
                "score_mode": "total",
                "rescore_query": {"script_score": {"query": {"match_all": {}}, "script": scripts["finerank"]}},
            },
        },
        "size": placeholder("size"),
        # Script fields alone would leave the document's source out.
        "_source": True,
        "script_fields": fields,
    }


def _script(spec: FusionSpec, program: Program, factors: Sequence[Factor], features: Features) -> dict[str, Any]:
    """The script whose value is the product of `factors`, with its parameters."""
    signals = Program(program.stage, tuple(factors)).signals
    lines = [f"// fusion spec {spec.spec_hash[:16]}, {program.stage}: compiled, not to be edited", _CLIP]
    if any(features.of(s) is None for s in signals):
        lines.append("String id = doc[params.id_field].value;")
    # A declared double: numbers that JSON wrote without a point are integers, and integers divide as integers.
    lines += [f"double query_{s.name} = {_signal(s, features)};" for s in signals if s.side == "query"]
    lines += [f"double {f.name} = {_factor(f, features)};" for f in factors]
    lines.append(f"return {' * '.join(f.name for f in factors) or '1.0'};")
    source = "\n".join(lines)
    numbers = {n.name: n.value for f in factors for n in (*_numbers(f.base), f.exponent)}
    asked = {name: placeholder(name) for name in _PARAMETER.findall(source) if name not in numbers}
    asked |= {_map(s): placeholder(f"{s.side}.{s.name}") for s in signals if features.of(s) is None}
    asked |= {f"present_{f.signal}": placeholder(f"present.{program.stage}.{f.signal}") for f in factors if f.kind == "rewrite"}
    return {"lang": "painless", "source": source, "params": numbers | asked}


def _factor(factor: Factor, features: Features) -> str:
    power = f"Math.pow({_expression(factor.base, features)}, params.{factor.exponent.name})"
    return power if factor.kind == "original" else f"params.present_{factor.signal} ? {power} : 1.0"


def _expression(expression: Expression, features: Features) -> str:
    match expression:
        case Number(name, _):
            return f"params.{name}"
        case Signal(name, "query"):
            return f"query_{name}"
        case Signal():
            # In place, not a variable: it is read only where the request says that it is there.
            return _signal(expression, features)
        case Call("divide", left, right):
            return f"{_expression(left, features)} / {_expression(right, features)}"
        case Call("min", Call("max", x, low), high):
            return f"clip({_expression(x, features)}, {_expression(low, features)}, {_expression(high, features)})"
        case Call(operator, left, right):
            return f"Math.{operator}({_expression(left, features)}, {_expression(right, features)})"


def _signal(signal: Signal, features: Features) -> str:
    feature = features.of(signal)
    if feature is not None:
        return feature
    # Under the query every document has a value, and one without is an error. Under the rewrite it is unmatched.
    return f"params.{_map(signal)}.get(id)" if signal.side == "query" else f"params.{_map(signal)}.getOrDefault(id, 0.0)"


def _map(signal: Signal) -> str:
    return f"{signal.side}_{signal.name}_by_id"


def _numbers(expression: Expression) -> tuple[Number, ...]:
    match expression:
        case Number():
            return (expression,)
        case Call(_, left, right):
            return _numbers(left) + _numbers(right)
        case Signal():
            return ()
