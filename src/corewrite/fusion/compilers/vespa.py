"""Vespa: a rank profile with a function per factor."""

from collections.abc import Mapping
from decimal import Decimal

from corewrite.fusion.compilers.features import DOUBLE_RANGE, Features, check_range, checked_features
from corewrite.fusion.program import Call, Expression, Factor, Number, Program, Signal, programs
from corewrite.fusion.spec import FusionSpec

PARENT = "corewrite_signals"
"""The user's rank profile, which has a function for each signal that no feature was named for."""


def rank_profile(spec: FusionSpec, given: Mapping[str, str]) -> str:
    """The rank profile `corewrite`: rawrank is its first phase, finerank its second, every factor a match feature.

    Args:
        spec: The spec.
        given: Vespa ranking expression by `query.NAME` or `rewrite.NAME`. A signal without one is the function
            `query_NAME` or `rewrite_NAME` of the profile `corewrite_signals`, which is then inherited.

    Raises:
        CompileError: see `compile_spec`.
    """
    check_range(spec, "Vespa", DOUBLE_RANGE)
    stages = programs(spec)
    features = checked_features(stages, given, "attribute(prior)")
    signals = list(dict.fromkeys(s for p in stages.values() for s in p.signals))
    inherited = [_signal(s) for s in signals if features.of(s) is None]
    lines = [f"# fusion spec {spec.spec_hash}: compiled, not to be edited"]
    if inherited:
        lines.append(f"# {PARENT} must have the functions {', '.join(inherited)}")
    lines.append(f"rank-profile corewrite{f' inherits {PARENT}' if inherited else ''} {{")
    flags = [_flag(p, f) for p in stages.values() for f in p.factors if f.kind == "rewrite"]
    if flags:
        lines += ["    inputs {", *(f"        {flag} double: 0" for flag in flags), "    }"]
    lines += [line for s in signals for line in _signal_function(s, features)]
    for program in stages.values():
        for factor in program.factors:
            lines += _function(_name(program, factor), _factor(program, factor))
        lines += _function(program.stage, " * ".join(_name(program, f) for f in program.factors) or "1.0")
    lines += ["    first-phase {", "        expression: rawrank", "    }"]
    lines += ["    second-phase {", "        expression: finerank"]
    # As many as finerank gets at most in the embedded cascade: the fused top K and the original top P.
    lines += [f"        rerank-count: {spec.depths.finerank + spec.depths.protected}", "    }"]
    lines += ["    match-features {", "        rawrank", "        finerank"]
    lines += [f"        {_name(p, f)}" for p in stages.values() for f in p.factors] + ["    }", "}"]
    return "\n".join(lines) + "\n"


def _function(name: str, expression: str) -> list[str]:
    return [f"    function {name}() {{", f"        expression: {expression}", "    }"]


def _signal_function(signal: Signal, features: Features) -> list[str]:
    feature = features.of(signal)
    return [] if feature is None else _function(_signal(signal), feature)


def _name(program: Program, factor: Factor) -> str:
    return f"{program.stage}_{factor.name}"


def _signal(signal: Signal) -> str:
    return f"{signal.side}_{signal.name}"


def _flag(program: Program, factor: Factor) -> str:
    return f"query(present_{program.stage}_{factor.signal})"


def _factor(program: Program, factor: Factor) -> str:
    power = f"pow({_expression(factor.base)}, {_number(factor.exponent.value)})"
    return power if factor.kind == "original" else f"if({_flag(program, factor)} > 0.0, {power}, 1.0)"


def _expression(expression: Expression) -> str:
    match expression:
        case Number(_, value):
            return _number(value)
        case Signal():
            return _signal(expression)
        case Call("divide", left, right):
            # Both sides are calls or atoms: no operator inside that could bind otherwise.
            return f"{_expression(left)} / {_expression(right)}"
        case Call(operator, left, right):
            return f"{operator}({_expression(left)}, {_expression(right)})"


def _number(value: float) -> str:
    """All digits of a double, without an exponent."""
    text = format(Decimal(repr(value)), "f")
    return text if "." in text else f"{text}.0"
