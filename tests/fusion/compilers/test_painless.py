"""The emitted search bodies, their scripts run by a small interpreter of what they use of Painless, rank like `evaluate_stage`.

Not run on an Elasticsearch or an OpenSearch: the interpreter has Java's types (an integer divides as an integer, null is no
number, a condition is a boolean) and refuses what it does not know.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corewrite.fusion import parse_spec
from corewrite.fusion.compilers import compile_spec, fill

TOKEN = re.compile(r"\s*(?://[^\n]*\n\s*)?(?:(\d+\.\d+|\d+)|('[^']*')|([A-Za-z_]\w*)|([-+*/?:;,.()\[\]{}=]))")
Env = dict[str, Any]
Node = Callable[[Env], Any]


class PainlessError(Exception):
    """What Painless would refuse or throw."""


def as_double(value: Any) -> float:
    """The implicit cast to double: of a number, not of null, a boolean or a string."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PainlessError(f"cannot cast {value!r} to double")
    return float(value)


def as_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise PainlessError(f"cannot cast {value!r} to boolean")
    return value


def divide(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise PainlessError("/ by zero")
        return int(a / b)
    a, b = as_double(a), as_double(b)
    return a / b if b else (math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a))


def multiply(a: Any, b: Any) -> Any:
    return a * b if isinstance(a, int) and isinstance(b, int) else as_double(a) * as_double(b)


def extreme(pick: Callable[..., float]) -> Callable[..., float]:
    # Java's Math.max and min, unlike Python's, give NaN whichever side it stands on.
    return lambda a, b: math.nan if math.isnan(a) or math.isnan(b) else pick(a, b)


def power(a: float, b: float) -> float:
    try:
        return math.pow(a, b)
    except OverflowError:
        return math.inf


MATH = {"max": extreme(max), "min": extreme(min), "pow": power}


class Script:
    """A parsed script: declarations of double functions, then `TYPE name = expression;`, then `return expression;`."""

    def __init__(self, source: str) -> None:
        self.tokens, position = [], 0
        while position < len(source.rstrip()):
            match = TOKEN.match(source, position)
            if match is None:
                raise PainlessError(f"cannot read {source[position:]!r}")
            self.tokens.append(match.group(match.lastindex))
            position = match.end()
        self.tokens += ["", "", ""]
        self.at = 0
        self.functions: dict[str, tuple[list[str], Node]] = {}
        while self.tokens[self.at + 2] == "(" and self.tokens[self.at] == "double":
            self.declare()
        self.body: list[tuple[str, str, Node]] = []
        while self.tokens[self.at] != "return":
            kind, name = self.take(), self.take()
            if kind not in ("double", "String") or name in [n for _, n, _ in self.body]:
                raise PainlessError(f"no declaration: {kind} {name}")
            self.take("=")
            self.body.append((kind, name, self.expression()))
            self.take(";")
        self.take("return")
        self.result = self.expression()
        self.take(";")
        if self.tokens[self.at]:
            raise PainlessError(f"{self.tokens[self.at]!r} is left over")

    def run(self, params: Mapping[str, Any], doc: Mapping[str, Any]) -> Any:
        env: Env = {"params": params, "doc": doc}
        for kind, name, node in self.body:
            value = node(env)
            if kind == "String" and not isinstance(value, str):
                raise PainlessError(f"cannot cast {value!r} to String")
            env[name] = as_double(value) if kind == "double" else value
        return self.result(env)

    def take(self, wanted: str | None = None) -> str:
        token = self.tokens[self.at]
        if wanted is not None and token != wanted:
            raise PainlessError(f"{wanted!r} expected, found {token!r}")
        self.at += 1
        return token

    def declare(self) -> None:
        self.take("double")
        name = self.take()
        self.take("(")
        names = []
        while self.tokens[self.at] != ")":
            self.take("double")
            names.append(self.take())
            if self.tokens[self.at] == ",":
                self.take()
        for token in (")", "{", "return"):
            self.take(token)
        body = self.expression()
        self.take(";")
        self.take("}")
        self.functions[name] = (names, body)

    def expression(self) -> Node:
        condition = self.product()
        if self.tokens[self.at] != "?":
            return condition
        self.take("?")
        yes = self.expression()
        self.take(":")
        no = self.expression()
        return lambda env: yes(env) if as_boolean(condition(env)) else no(env)

    def product(self) -> Node:
        node = self.postfix()
        while self.tokens[self.at] in ("*", "/"):
            node = self.operation(multiply if self.take() == "*" else divide, node, self.postfix())
        return node

    @staticmethod
    def operation(apply: Callable[[Any, Any], Any], left: Node, right: Node) -> Node:
        return lambda env: apply(left(env), right(env))

    def postfix(self) -> Node:
        node = self.primary()
        while self.tokens[self.at] in (".", "["):
            if self.take() == "[":
                node = self.operation(self.field, node, self.expression())
                self.take("]")
                continue
            name = self.take()
            node = self.method(node, name, self.arguments()) if self.tokens[self.at] == "(" else self.member(node, name)
        return node

    def arguments(self) -> list[Node]:
        self.take("(")
        nodes = []
        while self.tokens[self.at] != ")":
            nodes.append(self.expression())
            if self.tokens[self.at] == ",":
                self.take()
        self.take(")")
        return nodes

    @staticmethod
    def field(doc: Any, name: str) -> Any:
        if name not in doc:
            raise PainlessError(f"no field {name!r}")
        return {"value": doc[name]}

    @staticmethod
    def member(owner: Node, name: str) -> Node:
        return lambda env: owner(env).get(name)  # null where it is not there, as of a Map

    @staticmethod
    def method(owner: Node, name: str, arguments: list[Node]) -> Node:
        def call(env: Env) -> Any:
            target = owner(env)
            if not isinstance(target, dict):
                raise PainlessError(f"{name} of {target!r}")
            if (name, len(arguments)) not in (("get", 1), ("getOrDefault", 2)):
                raise PainlessError(f"no method {name}")
            return target.get(*(a(env) for a in arguments))

        return call

    def primary(self) -> Node:
        token = self.take()
        if token == "(":
            node = self.expression()
            self.take(")")
            return node
        if token[0].isdigit():
            number: float = float(token) if "." in token else int(token)
            return lambda env: number
        if token[0] == "'":
            return lambda env: token[1:-1]
        if token == "Math":
            self.take(".")
            name = self.take()
            return self.function(lambda *xs: MATH[name](*map(as_double, xs)), self.arguments())
        if self.tokens[self.at] == "(":
            names, body = self.functions[token]
            return self.function(lambda *xs: body(dict(zip(names, map(as_double, xs), strict=True))), self.arguments())
        return lambda env: env[token]

    @staticmethod
    def function(apply: Callable[..., Any], arguments: list[Node]) -> Node:
        return lambda env: apply(*(a(env) for a in arguments))


def run(source: str, params: Mapping[str, Any] | None = None, doc: Mapping[str, Any] | None = None) -> Any:
    return Script(source).run(params or {}, doc or {})


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("return 7 / 2;", 3), ("return 7 / 2.0;", 3.5), ("return params.a / params.b;", 3),
        ("double a = params.a; return a / 2;", 3.5),
        ("return Math.max(7, 2) / params.b;", 3.5), ("return 2 * 3 / 4.0;", 1.5),
        ("return params.yes ? 1.0 : params.none / 2;", 1.0),
        ("return params.m.getOrDefault('x', 0.0);", 5), ("return params.m.getOrDefault('y', 0.0);", 0.0),
        ("// c\nreturn doc['f'].value;", 2),
        ("double f(double x, double y) { return x / y; }\nreturn f(7, 2);", 3.5), ("return Math.pow(2, 3);", 8.0),
    ],
)  # fmt: skip
def test_the_interpreter_knows_the_documented_semantics(source, value):
    got = run(source, {"a": 7, "b": 2, "yes": True, "m": {"x": 5}}, {"f": 2})
    assert (got, type(got)) == (value, type(value))


def test_nan_goes_through_max_and_min():
    for source in ("return Math.max(params.x, 1.0);", "return Math.min(1.0, params.x);"):
        assert math.isnan(run(source, {"x": math.nan}))


@pytest.mark.parametrize(
    "source",
    [
        "return params.one ? 1.0 : 2.0;", "double x = params.none; return x;", "double x = params.m.get('y'); return x;",
        "return 1 / 0;", "return doc['none'].value;", "return 1 + 2;", "double x = 1.0;", "return params.m.size();",
        "double x = 1.0; double x = 2.0; return x;", "String id = 1; return id;", "return Math.max(params.yes, 1);",
    ],
)  # fmt: skip
def test_the_interpreter_refuses_what_painless_refuses_or_it_does_not_know(source):
    with pytest.raises((PainlessError, KeyError)):
        run(source, {"one": 1, "m": {}, "yes": True})


def pointless(value: Any) -> Any:
    """JSON as a client may send it that writes 4.0 as 4."""
    if isinstance(value, dict):
        return {k: pointless(v) for k, v in value.items()}
    if isinstance(value, list):
        return [pointless(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def request_values(requests, spec, i):
    """What a client sends with request i; a failed signal's NaN has no place in JSON, and its flag is off."""

    def by_id(values):
        return {f"d{d}": float(x) for d, x in enumerate(values[i]) if math.isfinite(x)}

    values = {f"query.{n}": by_id(v) for n, v in requests.own.items()}
    # An unmatched document is not among those the rewrite found.
    values |= {f"rewrite.{n}": {k: x for k, x in by_id(v).items() if x} for n, v in requests.new.items()}
    for stage, s in spec.stages.items():
        values |= {f"present.{stage}.{j.signal}": bool(requests.flag(stage, j.signal)[i]) for j in s.rewrite}
    return values | {"id_field": "id", "recall": [{"match": {"title": "x"}}], "size": 10}


def scripts(body):
    return {
        "rawrank": body["query"]["script_score"]["script"],
        "finerank": body["rescore"]["query"]["rescore_query"]["script_score"]["script"],
    }  # fmt: skip


def check(body, spec, requests, every=1):
    """Scores of all requests, factors of each `every`-th, whether JSON keeps the point of whole numbers or not."""
    expected = {stage: requests.expected(spec, stage) for stage in spec.stages}
    queries, documents = expected["rawrank"].score.shape
    prior = requests.own.get("prior", np.ones((queries, documents)))

    def build_values(field):
        stage, kind, name = field.split(".")
        factors = expected[stage].original_factors if kind == "original" else expected[stage].rewrite_factors
        return np.broadcast_to(factors[name], (queries, documents))

    emitted = {stage: (script, expected[stage].score, 1) for stage, script in scripts(body).items()}
    emitted |= {field: (f["script"], build_values(field), every) for field, f in body["script_fields"].items()}
    parsed = {name: Script(script["source"]) for name, (script, _, _) in emitted.items()}
    got = {name: np.full((queries, documents), np.nan) for name in emitted}
    for i in range(queries):
        values = request_values(requests, spec, i)
        if i % 2:
            values = json.loads(json.dumps(pointless(values), allow_nan=False))
        docs = [{"id": f"d{d}", "prior": float(prior[i, d])} for d in range(documents)]
        for name, (script, _, step) in emitted.items():
            if i % step == 0:
                params = fill(pointless(script["params"]) if i % 2 else script["params"], values)
                got[name][i] = [as_double(parsed[name].run(params, doc)) for doc in docs]
    for name, (_, want, step) in emitted.items():
        np.testing.assert_allclose(got[name][::step], want[::step], rtol=1e-9, err_msg=name)
        stage, _, signal = name.rpartition(".rewrite.")
        if stage:
            gone = expected[stage].status[signal][::step] != "ok"
            assert (got[name][::step][gone] == 1.0).all()


def test_2000_simulated_queries_score_as_evaluate_stage(simulated, spec):
    check(compile_spec(spec, "opensearch"), spec, simulated, every=20)


def test_both_engines_get_the_same_body(spec):
    assert compile_spec(spec, "opensearch") == compile_spec(spec, "elasticsearch")


@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_any_spec(specs, build_requests, data, seed):
    spec = data.draw(specs)
    check(compile_spec(spec, "elasticsearch"), spec, build_requests(seed, ("a", "b", "c"), 3, 4))


def test_the_body(rich):
    body = compile_spec(rich, "elasticsearch")
    assert body["rescore"]["window_size"] == 5 + 6
    # The rescored score alone: 0 times rawrank's plus finerank's.
    assert {k: body["rescore"]["query"][k] for k in ("query_weight", "rescore_query_weight", "score_mode")} == {
        "query_weight": 0.0, "rescore_query_weight": 1.0, "score_mode": "total",
    }  # fmt: skip
    names = {f"{s}.{kind}.{x.signal}" for s, stage in rich.stages.items()
             for kind, xs in (("original", stage.original), ("rewrite", stage.rewrite)) for x in xs}  # fmt: skip
    assert body["script_fields"].keys() == names
    for script in scripts(body).values():
        # The spec's numbers are parameters, so that another spec of the same shape is not compiled anew.
        code = re.sub(r"//[^\n]*\n", "", script["source"])
        assert set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?", code)) <= {"1.0", "0.0"}
        assert set(re.findall(r"params\.(\w+)", code)) == script["params"].keys()


SPEC = parse_spec("""
rawrank: {original: [{signal: a, eps: 0.1}]}
finerank:
  original: [{signal: a, eps: 0.1}]
  rewrite: [{signal: a, eps: 0.1}]
""")


def test_features_of_the_users_own():
    body = compile_spec(SPEC, "opensearch", {
        "query.a": "cosineSimilarity(params.query_vector, doc['v']) + 1.0", "rewrite.a": "doc['b'].value",
    })  # fmt: skip
    raw, fine = scripts(body).values()
    assert "double query_a = cosineSimilarity(params.query_vector, doc['v']) + 1.0;" in raw["source"]
    assert fine["params"]["query_vector"] == "${query_vector}"
    assert "id_field" not in raw["params"] | fine["params"]


def test_a_document_without_its_own_signal_is_an_error_not_a_floor():
    script = scripts(compile_spec(SPEC, "opensearch"))["finerank"]
    values = {"id_field": "id", "query.a": {"d0": 0.5}, "rewrite.a": {}, "present.finerank.a": True}
    params = fill(script["params"], values)
    assert run(script["source"], params, {"id": "d0"}) == pytest.approx(0.5 * math.sqrt(0.25))  # unmatched: 0.1 / 0.5, clipped
    assert run(script["source"], params | {"present_a": False}, {"id": "d0"}) == 0.5  # absent
    with pytest.raises(PainlessError, match="cannot cast None to double"):
        run(script["source"], params, {"id": "d1"})


def test_an_absent_rewrite_needs_no_values():
    script = scripts(compile_spec(SPEC, "opensearch"))["finerank"]
    params = fill(script["params"], {"id_field": "id", "query.a": {"d0": 0.5}, "rewrite.a": None, "present.finerank.a": False})
    assert run(script["source"], params, {"id": "d0"}) == 0.5
