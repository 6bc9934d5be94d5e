"""The emitted rank profile, read by a small parser of what it uses of Vespa's language, ranks like `evaluate_stage`.

Not run on a Vespa: the reader knows the documented syntax and semantics, and refuses what it does not know.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corewrite.fusion import default_spec, parse_spec
from corewrite.fusion.compilers import CompileError, compile_spec

Value = np.ndarray | float
TOKEN = re.compile(r"\s*(?:(\d+\.\d+|\d+)(?![\w.])|([A-Za-z_]\w*)|(<=|>=|==|&&|\|\||[-+*/^<>(),]))")
# Loosest first. Between operators of one row the documentation has an order of its own: the reader refuses to mix them.
PRECEDENCE = (("||",), ("&&",), ("<", ">", "<=", ">=", "=="), ("+", "-"), ("*", "/"))
BINARY: dict[str, Callable[[Value, Value], Value]] = {
    "||": np.logical_or, "&&": np.logical_and, "<": np.less, ">": np.greater, "<=": np.less_equal, ">=": np.greater_equal,
    "==": np.equal, "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide,
}  # fmt: skip
BUILT_IN: dict[str, tuple[int, Callable[..., Value]]] = {
    "max": (2, np.maximum), "min": (2, np.minimum), "pow": (2, np.power), "log": (1, np.log), "exp": (1, np.exp),
    # Anything that is not 0 is true; NaN > 0 is false.
    "if": (3, lambda c, a, b: np.where(np.asarray(c) != 0, a, b)),
}  # fmt: skip


class Reader:
    """A recursive-descent reader of ranking expressions; all numbers are doubles, so 1 / 2 is 0.5."""

    def __init__(self, text: str, features: Mapping[str, Value | str]) -> None:
        self.features, self.tokens, self.at = features, [], 0
        position = 0
        while position < len(text.rstrip()):
            match = TOKEN.match(text, position)
            if match is None:
                raise SyntaxError(f"cannot read {text[position:]!r}")
            self.tokens.append(match.group(match.lastindex))
            position = match.end()
        self.tokens.append("")

    def read(self) -> Value:
        value = self.binary(0)
        if self.tokens[self.at]:
            raise SyntaxError(f"{self.tokens[self.at]!r} is left over")
        return value

    def take(self, wanted: str | None = None) -> str:
        token = self.tokens[self.at]
        if wanted is not None and token != wanted:
            raise SyntaxError(f"{wanted!r} expected, found {token!r}")
        self.at += 1
        return token

    def binary(self, level: int) -> Value:
        if level == len(PRECEDENCE):
            return self.primary()
        value, seen = self.binary(level + 1), set()
        while self.tokens[self.at] in PRECEDENCE[level]:
            operator = self.take()
            seen.add(operator)
            if len(seen) > 1:
                raise SyntaxError(f"{sorted(seen)} mixed without parentheses")
            value = BINARY[operator](value, self.binary(level + 1))
        return value

    def primary(self) -> Value:
        token = self.take()
        if token == "(":
            value = self.binary(0)
            self.take(")")
            return value
        if re.match(r"\d", token):
            return float(token)
        if not re.match(r"[A-Za-z_]", token):
            raise SyntaxError(f"no value at {token!r}")
        if self.tokens[self.at] != "(":
            return self.feature(token)
        self.take("(")
        if token in ("query", "attribute"):
            name = self.take()
            self.take(")")
            return self.feature(f"{token}({name})")
        arguments = [self.binary(0)]
        while self.tokens[self.at] == ",":
            self.take()
            arguments.append(self.binary(0))
        self.take(")")
        count, function = BUILT_IN[token]
        if len(arguments) != count:
            raise SyntaxError(f"{token} takes {count} arguments")
        return function(*arguments)

    def feature(self, name: str) -> Value:
        """A feature's value, or that of a function's text."""
        value = self.features[name]
        return evaluate(value, self.features) if isinstance(value, str) else value


def evaluate(text: str, features: Mapping[str, Value | str]) -> Value:
    with np.errstate(all="ignore"):
        return Reader(text, features).read()


@dataclass(frozen=True)
class Profile:
    inherits: str | None
    inputs: dict[str, float]
    functions: dict[str, str]
    first: str
    second: str
    rerank: int
    match_features: list[str]


def read_profile(text: str) -> Profile:
    """Read a rank profile; a line that is none of what Vespa's schema reference has is an error."""
    lines = [s for line in text.splitlines() if (s := line.strip()) and not s.startswith("#")]
    head = re.fullmatch(r"rank-profile corewrite(?: inherits (\w+))? \{", lines.pop(0))
    assert head and lines.pop() == "}"
    inputs, functions, features, phases, rerank, block = {}, {}, [], {}, 0, ""
    for line in lines:
        if line == "}":
            assert block
            block = ""
        elif not block:
            match = re.fullmatch(r"(inputs|match-features|first-phase|second-phase|function (\w+)\(\)) \{", line)
            assert match, line
            block = match[2] or match[1]
        elif block == "inputs":
            match = re.fullmatch(r"(query\(\w+\)) double: (\d+)", line)
            assert match, line
            inputs[match[1]] = float(match[2])
        elif block == "match-features":
            assert re.fullmatch(r"\w+", line)
            features.append(line)
        elif line.startswith("rerank-count: "):
            assert block == "second-phase"
            rerank = int(line.removeprefix("rerank-count: "))
        else:
            assert line.startswith("expression: "), line
            target = phases if block.endswith("-phase") else functions
            assert block not in target
            target[block] = line.removeprefix("expression: ")
    return Profile(head[1], inputs, functions, phases["first-phase"], phases["second-phase"], rerank, features)


def features_of(profile, requests, spec):
    """What the user's engine supplies: signals as functions of the parent profile, flags with the request."""
    supplied = {f"query_{n}": v for n, v in requests.own.items()} | {f"rewrite_{n}": v for n, v in requests.new.items()}
    supplied["attribute(prior)"] = supplied.pop("query_prior", 0.0)
    sent = {
        f"query(present_{stage}_{j.signal})": requests.flag(stage, j.signal)[:, None].astype(float)
        for stage, s in spec.stages.items()
        for j in s.rewrite
    }
    assert sent.keys() == profile.inputs.keys()
    return supplied | sent | profile.functions


def check(spec, requests):
    profile = read_profile(compile_spec(spec, "vespa"))
    features = features_of(profile, requests, spec)
    for stage, phase in (("rawrank", profile.first), ("finerank", profile.second)):
        want = requests.expected(spec, stage)
        got = np.broadcast_to(evaluate(phase, features), want.score.shape)
        np.testing.assert_allclose(got, want.score, rtol=1e-9)
        for kind, factors in (("original", want.original_factors), ("rewrite", want.rewrite_factors)):
            for name, values in factors.items():
                assert f"{stage}_{kind}_{name}" in profile.match_features
                factor = evaluate(f"{stage}_{kind}_{name}", features)
                np.testing.assert_allclose(np.broadcast_to(factor, values.shape), values, rtol=1e-9)
                # Absent is not "about 1".
                gone = [s != "ok" for s in want.status[name]] if kind == "rewrite" else []
                assert (np.broadcast_to(factor, values.shape)[np.array(gone, bool)] == 1.0).all() if gone else True
    return profile


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7.0), ("(1 + 2) * 3", 9.0), ("1 / 2", 0.5), ("2 * 3 + 1 > 6 && 1 < 2", 1.0), ("8.0 / 2 / 2", 2.0),
        ("if(query(x) > 0.0, 5, 7)", 5.0), ("if(query(nan) > 0.0, 5, 7)", 7.0), ("if(query(zero) > 0.0, 5, 7)", 7.0),
        ("max(1, min(3, 2))", 2.0), ("pow(2, 3)", 8.0), ("log(exp(2))", 2.0), ("max(6, 2) / max(3, 1)", 2.0), ("f * f", 9.0),
    ],
)  # fmt: skip
def test_the_reader_knows_the_documented_semantics(text, value):
    features = {"query(x)": 1.0, "query(nan)": np.nan, "query(zero)": 0.0, "f": "1 + 2"}
    assert evaluate(text, features) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["1 +", "max(1)", "1 2", "6 * 2 / 3", "1 - 2 + 3", "1e-5", "f(1)", "a.b", "2 ^ 3", ""])
def test_the_reader_refuses_what_it_does_not_know(text):
    with pytest.raises((SyntaxError, KeyError)):
        evaluate(text, {})


def test_2000_simulated_queries_score_as_evaluate_stage(simulated, spec):
    profile = check(spec, simulated)
    assert profile.rerank == spec.depths.finerank + spec.depths.protected
    assert (profile.first, profile.second) == ("rawrank", "finerank")
    assert profile.inherits == "corewrite_signals"


def test_the_requests_hold_every_case(simulated, rich):
    """What the test above would be worth little without."""
    for stage in ("rawrank", "finerank"):
        states = {str(s) for status in simulated.expected(rich, stage).status.values() for s in status}
        assert states == {"ok", "neutral", "error"}
    fused = simulated.expected(rich, "finerank").rewrite_factors
    for j in rich.finerank.rewrite:
        assert {np.round(f, 9) for f in np.unique(fused[j.signal])} >= {round(b**j.exponent, 9) for b in (j.lo, j.hi)}


@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_any_spec(specs, build_requests, data, seed):
    check(data.draw(specs), build_requests(seed, ("a", "b", "c"), 4, 5))


GOLDEN = parse_spec("""
rawrank: {original: [{signal: rel, eps: 0.01}]}
finerank:
  original: [{signal: rel, eps: 0.01}, {signal: prior, eps: 0.04, exponent: 0.5}]
  rewrite:
    - {signal: rel, eps: 0.1, lo: 0.25, hi: 4, exponent: 0.5}
    - {signal: new, relative_to: constant, n: 0.5, eps: 0.02, lo: 0.5, hi: 2, exponent: 1}
""")


def test_golden():
    """Numbers by hand, as in test_evaluate."""
    profile = read_profile(compile_spec(GOLDEN, "vespa"))
    features = profile.functions | {
        "query_rel": np.array([0.2, 0.8, 0.0]), "attribute(prior)": np.array([0.25, 0.01, 4.0]),
        "rewrite_rel": np.array([0.8, 0.05, 0.9]), "rewrite_new": np.array([0.6, 0.0, 9.0]),
        "query(present_finerank_rel)": 1.0, "query(present_finerank_new)": 1.0,
    }  # fmt: skip
    assert evaluate("finerank", features) == pytest.approx([0.24, 0.04, 0.04])
    # Unmatched: the floor 0.02 over 0.5, clipped to 1/2. Absent: 1.
    assert evaluate("finerank_rewrite_new", features)[1] == 0.5
    assert (evaluate("finerank_rewrite_new", features | {"query(present_finerank_new)": 0.0}) == 1.0).all()


def test_every_flag_is_off_unless_the_request_says_so():
    assert set(read_profile(compile_spec(GOLDEN, "vespa")).inputs.values()) == {0.0}


def test_features_of_the_users_own():
    given_ = {"query.rel": "closeness(field, v)", "rewrite.rel": "closeness(label, r)", "rewrite.new": "bm25(title)"}
    profile = read_profile(compile_spec(GOLDEN, "vespa", given_))
    assert profile.inherits is None
    assert {n: profile.functions[n] for n in ("query_rel", "rewrite_rel", "rewrite_new", "query_prior")} == {
        "query_rel": "closeness(field, v)", "rewrite_rel": "closeness(label, r)", "rewrite_new": "bm25(title)",
        "query_prior": "attribute(prior)",
    }  # fmt: skip


def test_what_cannot_be_compiled_is_refused_with_the_fix():
    with pytest.raises(CompileError, match=r"no signal 'query\.nothing'.*query\.prior"):
        compile_spec(default_spec(), "vespa", {"query.nothing": "1"})
    with pytest.raises(CompileError, match="no engine 'solr': there are vespa"):
        compile_spec(default_spec(), "solr")
    stage = "{original: [{signal: a-b, eps: 0.1}]}"
    with pytest.raises(CompileError, match=r"'a-b' must be letters, digits and _.*rename it"):
        compile_spec(parse_spec(f"rawrank: {stage}\nfinerank: {stage}"), "vespa")
    stage = "{original: [{signal: a, eps: 1.0e-200, exponent: 4}]}"
    with pytest.raises(CompileError, match=r"'rawrank' may reach from e.-1842\.1.*raise an eps"):
        compile_spec(parse_spec(f"rawrank: {stage}\nfinerank: {stage}"), "vespa")
    # Vespa's doubles hold what the others' single precision cannot.
    stage = "{original: [{signal: a, eps: 1.0e-20, exponent: 4}]}"
    wide = parse_spec(f"rawrank: {stage}\nfinerank: {stage}")
    assert "0.00000000000000000001" in compile_spec(wide, "vespa")
    for engine in ("opensearch", "elasticsearch", "qdrant"):
        with pytest.raises(CompileError, match=r"holds e.-87\.3"):
            compile_spec(wide, engine)
