"""The HTTP face: problems, limits, keys, metrics, and whatever anybody may send."""

import asyncio
import json

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corewrite.serving.app import build_app
from corewrite.serving.cache import MemoryCache

ROUTES = ("/v1/rewrite", "/v1/search", "/v1/explain")


async def echo(queries, n):
    return [["music video"]] * len(queries)


def exchange(made, kit, requests, **changes):
    """Responses to (method, path, httpx arguments)."""

    async def go():
        async with kit.running(made.config(**changes), echo) as client:
            return [await client.http.request(method, path, **arguments) for method, path, arguments in requests]

    return asyncio.run(go())


def is_problem(response):
    told = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert told["status"] == response.status_code and told["title"] and told["type"] == "about:blank"
    return told


DEEP = b'{"query": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BAD = [
    (b"", 422), (b"{", 400), (b'{"query": "a"', 400), (b'"text"', 422), (b"[]", 422), (b"null", 422), (b"{}", 422), (DEEP, 400),
    (b'{"query": "\xff\xfe"}', 400), (b'{"query": ""}', 422), (b'{"query": "  \\n"}', 422), (b'{"query": 7}', 422),
    (b'{"query": null}', 422), (b'{"query": "a", "quarry": 1}', 422), (b'{"query": "\\ud800"}', 422),
    (b'{"query": "a", "\\ud800": 1}', 422), (b'{"query": "a", "context": {"titles": "b"}}', 422),
    (b'{"query": "a", "context": {"titles": ["b", ""]}}', 422), (b'{"query": "' + b"x" * 600 + b'"}', 422),
    (b'{"query": "a", "context": {"queries": [' + b'"b",' * 60 + b'"b"]}}', 422),
    (b'{"query": "a", "depth": ' + b"9" * 5_000 + b"}", 400), (b'{"query": "' + b"x" * 2**20 + b'"}', 413),
]  # fmt: skip


def test_what_is_no_request_is_a_problem_that_repeats_nothing_of_it(made, kit):
    headers = {"content-type": "application/json"}
    requests = [("POST", path, {"content": body, "headers": headers}) for path in ROUTES for body, _ in BAD]
    found = exchange(made, kit, requests)
    for (_, path, _), response, (body, status) in zip(requests, found, BAD * 3, strict=True):
        assert response.status_code == status, (path, body[:60], response.text)
        assert "xxxx" not in json.dumps(is_problem(response))


def test_other_methods_and_places_are_problems(made, kit):
    requests = [
        ("GET", "/v1/search", {}), ("POST", "/nowhere", {"json": {}}), ("POST", "/v1/rewrite", {"json": {"batch": []}}),
        ("POST", "/v1/rewrite", {"json": {"batch": [{"query": "a"}] * 65}}),
        ("POST", "/v1/search", {"json": {"query": "a", "depth": 101}}),
        ("POST", "/v1/search", {"json": {"query": "a", "rewrites": 5}}),
        ("POST", "/v1/search", {"content": b"x", "headers": {"content-length": "99999999999999999999999"}}),
        ("POST", "/v1/search", {"content": b"x", "headers": {"content-length": "-1"}}),
    ]  # fmt: skip
    found = exchange(made, kit, requests)
    assert [r.status_code for r in found] == [405, 404, 422, 422, 422, 422, 413, 413]
    for response in found:
        is_problem(response)


def test_a_body_without_end_is_refused_while_it_streams(made, kit):
    sent = []

    async def endless():
        while True:
            sent.append(1)
            assert len(sent) < 100
            yield b"x" * 16_384

    (response,) = exchange(made, kit, [("POST", "/v1/search", {"content": endless()})])
    assert response.status_code == 413 and len(sent) == 17
    is_problem(response)


def test_too_many_at_a_time_get_429_and_the_probes_still_answer(made, kit):
    async def slow(queries, n):
        await asyncio.sleep(0.3)
        return [["x"]] * len(queries)

    async def go():
        async with kit.running(made.config(limits={"in_flight": 2}), slow) as client:
            asked = [asyncio.create_task(client.http.post("/v1/search", json={"query": f"q{i}"})) for i in range(2)]
            await asyncio.sleep(0.1)
            refused = await client.http.post("/v1/search", json={"query": "q"})
            assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
            is_problem(refused)
            assert (await client.http.get("/healthz")).status_code == 200
            assert [(await a).status_code for a in asked] == [200, 200]
            assert (await client.http.post("/v1/search", json={"query": "q"})).status_code == 200

    asyncio.run(go())


def test_keys(made, kit, monkeypatch):
    ask, kill = ("POST", "/v1/search", {"json": {"query": "a"}}), ("POST", "/v1/admin/kill", {})
    found = exchange(made, kit, [ask, kill, ("GET", "/readyz", {})])
    assert [r.status_code for r in found] == [200, 403, 200]  # no key: no admin calls
    is_problem(found[1])
    monkeypatch.setenv("SERVE_KEY", "plain")
    wrong = {"headers": {"x-api-key": b"other\xff"}}
    requests = [
        ask,
        ("POST", "/v1/search", {**ask[2], **wrong}),
        ("POST", "/v1/admin/kill", wrong),
        ("GET", "/readyz", {}),
        ("GET", "/metrics", {}),
    ]
    found = exchange(made, kit, requests, api_key_env="SERVE_KEY")
    assert [r.status_code for r in found] == [401, 401, 401, 200, 200]
    assert is_problem(found[0]) and found[0].headers["www-authenticate"] == "ApiKey"
    right = {"headers": {"x-api-key": "plain"}}
    found = exchange(made, kit, [("POST", "/v1/search", {**ask[2], **right})], api_key_env="SERVE_KEY")
    assert found[0].status_code == 200
    monkeypatch.delenv("SERVE_KEY")
    with pytest.raises(ValueError, match="SERVE_KEY"):
        build_app(made.config(api_key_env="SERVE_KEY"))
    monkeypatch.setenv("SERVE_KEY", "kéy")
    with pytest.raises(ValueError, match=r"SERVE_KEY holds characters .* use ASCII"):
        build_app(made.config(api_key_env="SERVE_KEY"))


def test_rewrites_alone_keep_the_arms_and_the_shadow(made, kit):
    asked = [("POST", "/v1/rewrite", {"json": {"query": "lion", "client_id": f"c{i}"}}) for i in range(30)]
    found = [r.json() for r in exchange(made, kit, asked, arms={"none": 0.4, "finerank_only": 0.3, "all_stages": 0.3})]
    for answer in found:
        (result,) = answer["results"]
        assert (result["rewrites"] == []) == (result["reason"] == "arm") == (answer["arm"] == "none")
    assert {answer["arm"] for answer in found} == {"none", "launch_1", "launch_2"}
    searched = exchange(
        made, kit, [("POST", "/v1/search", {"json": {"query": "lion", "client_id": f"c{i}"}}) for i in range(30)],
        arms={"none": 0.4, "finerank_only": 0.3, "all_stages": 0.3},
    )  # fmt: skip
    assert [r.json()["arm"] for r in searched] == [answer["arm"] for answer in found]
    nobody, unseen = ("POST", "/v1/rewrite", {"json": {"query": "lion"}}), {"shadow": True}
    plain, hidden = exchange(made, kit, [nobody])[0].json(), exchange(made, kit, [nobody], **unseen)[0].json()
    assert plain["arm"] is None and plain["results"][0]["rewrites"]
    assert hidden["results"] == [{"rewrites": [], "status": "off", "reason": "shadow"}]


def test_metrics_count_what_happened(made, kit):
    ask = ("POST", "/v1/search", {"json": {"query": "lion"}})
    *_, metrics = exchange(
        made, kit, [ask, ask, ("POST", "/v1/search", {"content": b"{"}), ("GET", "/elsewhere", {}), ("GET", "/metrics", {})]
    )
    for line in (
        'corewrite_requests_total{route="/v1/search",status="200"} 2.0',
        'corewrite_requests_total{route="/v1/search",status="422"} 1.0',
        'corewrite_requests_total{route="other",status="404"} 1.0',
        'corewrite_rewrites_total{reason="ok"} 1.0',
        'corewrite_rewrites_total{reason="cached"} 1.0',
        'corewrite_signals_total{signal="finerank.relevance",status="ok"} 2.0',
        'corewrite_stage_seconds_count{stage="finerank"} 2.0',
        "corewrite_ready 1.0",
        "corewrite_champion_version 1.0",
    ):
        assert line in metrics.text.splitlines(), line
    assert "lion" not in metrics.text


def test_a_batch_of_rewrites_keeps_its_order_and_the_late_come_as_timeouts(made, kit):
    async def by_text(queries, n):
        if any(q.text == "slow" for q in queries):
            await asyncio.sleep(0.5)
        return [[f"{q.text} {k}" for k in range(n)] for q in queries]

    async def go():
        async with kit.running(made.config(rewriter={"max_batch": 1}), by_text) as client:
            body = {"batch": [{"query": "b"}, {"query": "a"}, {"query": "b"}], "rewrites": 2}
            told = (await client.http.post("/v1/rewrite", json=body)).json()
            assert [r["rewrites"] for r in told["results"]] == [["b 0", "b 1"], ["a 0", "a 1"], ["b 0", "b 1"]]
            assert told["policy"] == made.first.policy
            told = (await client.http.post("/v1/rewrite", json={"query": "slow", "deadline_ms": 30})).json()
            assert told["results"] == [{"rewrites": [], "status": "timeout", "reason": "late"}]

    asyncio.run(go())


def plain_app(made, kit, **changes):
    return build_app(made.config(**changes), kit.Fakes(echo).maker(lambda: MemoryCache(1000, 60), made.config().rewriter))


def test_the_openapi_is_kept_by_every_generated_request(made, kit, monkeypatch):
    monkeypatch.setenv("SERVE_KEY", "k3y")
    schema = schemathesis.openapi.from_asgi("/openapi.json", plain_app(made, kit, api_key_env="SERVE_KEY"))
    tried = set()

    for operation in (result.ok() for result in schema.get_all_operations()):
        if operation.path == "/metrics":
            continue

        @given(case=operation.as_strategy())
        @settings(max_examples=25, suppress_health_check=list(HealthCheck))
        def keeps_it(case):
            case.call_and_validate(headers={"X-API-Key": "k3y"})

        keeps_it()
        tried.add(operation.path)
    assert tried >= {*ROUTES, "/healthz", "/readyz"}


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = ["query", "context", "queries", "titles", "locale", "depth", "rewrites", "batch", "client_id", "rewrite", "deadline_ms"]
NEAR = st.dictionaries(
    st.sampled_from(NAMES), JSONISH | st.fixed_dictionaries({"queries": JSONISH, "titles": JSONISH}), max_size=6
)
BODIES = (
    st.binary(max_size=60)
    | JSONISH.map(lambda v: json.dumps(v).encode())
    | NEAR.map(lambda v: json.dumps({"query": "a", **v}).encode())
)


def test_no_body_makes_a_5xx(made, kit):
    async def ask(client, path, body):
        response = await client.http.post(path, content=body, headers={"content-type": "application/json"})
        assert response.status_code < 500, (path, body, response.text)
        if response.status_code != 200:
            is_problem(response)

    with asyncio.Runner() as runner:
        context = kit.running(made.config(), echo)
        client = runner.run(context.__aenter__())

        @given(path=st.sampled_from(ROUTES), body=BODIES)
        @settings(max_examples=400, suppress_health_check=list(HealthCheck))
        def fuzz(path, body):
            runner.run(ask(client, path, body))

        fuzz()
        runner.run(context.__aexit__(None, None, None))


def test_a_given_rewrite_is_within_the_limit_that_the_openapi_names(made, kit):
    requests = [("POST", "/v1/explain", {"json": {"query": "a", "rewrite": "x" * n}}) for n in (513, 512)]
    refused, taken = exchange(made, kit, requests)
    assert (refused.status_code, taken.status_code) == (422, 200)
    assert is_problem(refused)["errors"][0]["at"] == "body.rewrite"


def test_a_client_that_goes_away_is_no_error_of_the_server(made, kit):
    async def gone():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    async def go():
        app = plain_app(made, kit)
        async with app.router.lifespan_context(app):
            scope = {"type": "http", "method": "POST", "path": "/v1/search", "headers": [], "query_string": b""}
            await app(scope, gone, send)
            return app.state.service.metrics.text().decode()

    lines = [line for line in asyncio.run(go()).splitlines() if line.startswith("corewrite_requests_total")]
    assert lines == ['corewrite_requests_total{route="/v1/search",status="499"} 1.0']
