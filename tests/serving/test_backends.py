"""Relevance models and engines by settings: the same answers as without where they compute the same, pins, and what is said."""

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from qdrant_client import QdrantClient
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.replay import ReplayError, replay_log
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import ConfigError
from corewrite.domain.earlier_config import OldConfigWarning
from corewrite.fusion import default_spec
from corewrite.logs.files import log_files
from corewrite.registry import Candidate
from corewrite.relevance import DenseScorer, LateInteraction, cold_start
from corewrite.relevance.backends import ScoreError, ScorerMismatchError
from corewrite.remote.http import BoundedTransport
from corewrite.search.engines import fill_opensearch, fill_qdrant, fill_redis
from corewrite.serving.app import build_app
from corewrite.serving.settings import load_serve_config


def bundled(catalogue):
    """Opens what the bundled model and the embedded indexes ranked."""
    return RankerOpener(RankerSettings(), catalogue)


TESTS = Path(__file__).parent.parent


def beside(name, file):
    """A file of other tests; their import mode does not make them a package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


ModelServer = beside("corewrite_faults_model_server", TESTS / "faults" / "model_server.py").ModelServer
engines = beside("corewrite_engines_conftest", TESTS / "search" / "engines" / "conftest.py")
SmallOpenSearch = engines.SmallOpenSearch


@pytest.fixture(scope="module")
def model_server(made):
    started = ModelServer(made.catalogue, frozenset())
    yield started
    started.http.shutdown()


def kserve(model_server, **changes):
    return {"kind": "kserve", "url": model_server.url, "model": "m", "version": "1", "timeout_ms": 20_000, **changes}


def dense(made, relevance=None):
    registry, hash = made.registry, relevance or made.first.relevance
    return DenseScorer(LateInteraction.load(registry.path(registry.artifact("relevance", hash))).bind(made.catalogue))


async def searched(made, kit, config, queries):
    async with kit.running(config, kit.as_title(made.catalogue)) as client:
        ready = (await client.http.get("/readyz")).json()
        answers = [await client.search(q, explain=True, client_id="c") for q in queries]
        metrics = (await client.http.get("/metrics")).text
    return ready, answers, metrics


def same(answers, others, rel=1e-9):
    for one, other in zip(answers, others, strict=True):
        assert one["rewrites"] == other["rewrites"] and one["signal_status"] == other["signal_status"]
        assert [r["id"] for r in one["results"]] == [r["id"] for r in other["results"]]
        for a, b in zip(one["results"], other["results"], strict=True):
            assert a["score"] == pytest.approx(b["score"], rel=rel)


def test_a_model_server_computes_the_signal_relevance_and_is_told_everywhere(made, kit, model_server, tmp_path):
    queries, log = made.queries(4), tmp_path / "log"

    async def check():
        _, expected, _ = await searched(made, kit, made.config(), queries)
        before = model_server.asked
        config = made.config(relevance=kserve(model_server), log={"folder": log, "query_text": True})
        ready, answers, metrics = await searched(made, kit, config, queries)
        assert model_server.asked > before
        same(answers, expected)
        return config, ready, metrics

    config, ready, metrics = asyncio.run(check())
    told = ready["backends"]
    opener = RankerOpener(config.what_ranks, made.catalogue, settings_rank=True)
    assert told["relevance"] == {"kind": "kserve", "pin": "1", "hash": told["relevance"]["hash"], "answers": True}
    assert told["engine"] == {"kind": "embedded"} and len(told["relevance"]["hash"]) == 64
    assert "corewrite_relevance_open 0.0" in metrics
    lines = [json.loads(line) for path in log_files(log) for line in path.read_text().splitlines()]
    for line in lines:
        served = line["query_attributes"]["served"]
        assert served["backends"]["relevance"] == {"kind": "kserve", "pin": "1", "hash": told["relevance"]["hash"]}
        assert served["relevance"] == made.first.relevance and served["spec"] == made.first.spec
    # Another relevance model must not pass for the bundled one in a replay.
    with pytest.raises(ReplayError, match="embedded"):
        replay_log(log, made.registry, bundled(made.catalogue))
    found = replay_log(log, made.registry, opener)
    assert found.factors.share_agreeing == 1.0 and found.same_lists == 4


def test_another_version_or_no_probability_does_not_start_and_a_silent_server_does(made, kit, model_server):
    with pytest.raises(ScorerMismatchError, match="asked was version '2'"):
        build_app(made.config(relevance=kserve(model_server, version="2")))
    model_server.fault = "NaN"
    try:
        with pytest.raises(ScoreError, match="is nan"):
            build_app(made.config(relevance=kserve(model_server)))
        model_server.fault = "down"
        config = made.config(relevance=kserve(model_server, retries=0, cache=0))

        async def check():
            async with kit.running(config, kit.as_title(made.catalogue)) as client:
                query = made.queries(1)[0]
                for _ in range(3):
                    answer = await client.search(query)
                    assert answer["signal_status"]["finerank.original"] == "error" and len(answer["results"]) == 10
                asked = model_server.asked
                await client.search(query)
                assert model_server.asked == asked, "it was down three times in a row: it is left alone"
                ready = await client.http.get("/readyz")
                assert ready.status_code == 200 and ready.json()["backends"]["relevance"]["answers"] is False
                assert "corewrite_relevance_open 1.0" in (await client.http.get("/metrics")).text
                model_server.fault = ""
                await asyncio.sleep(1.1)
                assert "finerank.original" not in (await client.search(query))["signal_status"]

        asyncio.run(check())
    finally:
        model_server.fault = ""


@pytest.mark.parametrize("kind", ["onnx", "cross_encoder", "clip"])
def test_a_folder_that_is_not_the_pinned_one_does_not_start(made, tmp_path, kind):
    for name in ("model.onnx", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ScorerMismatchError, match=f"pinned is {'0' * 64}"):
        build_app(made.config(relevance={"kind": kind, "folder": tmp_path, "pin": "0" * 64}))


@pytest.mark.parametrize(
    ("package", "extra", "settings"),
    [
        ("httpx", "kserve", {"relevance": {"kind": "kserve", "url": "http://x", "model": "m", "version": "1"}}),
        ("onnxruntime", "onnx", {"relevance": {"kind": "onnx", "folder": ".", "pin": "0" * 64}}),
        ("sentence_transformers", "cross-encoder", {"relevance": {"kind": "cross_encoder", "folder": ".", "pin": "0" * 64}}),
        ("qdrant_client", "qdrant", {"ranker": {"recall": {"kind": "qdrant", "url": "http://x", "collection": "c"}}}),
        ("opensearchpy", "opensearch", {"ranker": {"recall": {"kind": "opensearch", "url": "http://x", "index": "i"}}}),
        ("redis", "redis", {"ranker": {"recall": {"kind": "redis", "url": "redis://x", "index": "i"}}}),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(made, monkeypatch, package, extra, settings):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"corewrite\[{extra}\]"):
        build_app(made.config(**settings))


@pytest.fixture
def qdrant(monkeypatch):
    """The real client in its local mode, in the place of one over the network; what it was opened with."""
    local, opened = QdrantClient(":memory:"), {}

    def client(**arguments):
        opened.update(arguments)
        return local

    monkeypatch.setattr("qdrant_client.QdrantClient", client)
    return local, opened


def test_qdrant_answers_like_the_embedded_index_and_follows_a_new_relevance_model_by_name(platform, kit, qdrant, monkeypatch):
    local, opened = qdrant
    monkeypatch.setenv("QDRANT", "s3cret")
    model = cold_start(platform.catalogue)
    scalars = model.scalars.copy()
    scalars[-1] = 0  # without pictures: other vectors
    other = platform.registry.save("relevance", type(model)(**{**vars_of(model), "scalars": scalars}).save, {}).hash
    engine = {"kind": "qdrant", "url": "http://q:6333", "collection": "videos-{relevance}", "api_key_env": "QDRANT"}
    first = platform.first.relevance
    fill_qdrant(local, f"videos-{first[:12]}", platform.catalogue, dense(platform).document_vectors)
    queries = platform.queries(4)

    async def check():
        _, expected, _ = await searched(platform, kit, platform.config(), queries)
        config = platform.config(ranker={"recall": engine})
        ready, answers, _ = await searched(platform, kit, config, queries)
        assert isinstance(opened.pop("transport"), BoundedTransport)
        assert opened == {"url": "http://q:6333", "api_key": "s3cret", "timeout": 1, "check_compatibility": False}
        assert ready["backends"]["engine"] == {"kind": "qdrant", "collection": "videos-{relevance}"}
        assert "s3cret" not in json.dumps(ready)
        same(answers, expected)
        async with kit.running(config, kit.as_title(platform.catalogue)) as client:
            name = f"videos-{other[:12]}"
            platform.promote(Candidate(platform.first.policy, other, platform.first.spec))
            await kit.until(lambda: name in client.service.versions.problem)  # there is none
            # One filled with the vectors of the model before is not taken for it.
            fill_qdrant(local, name, platform.catalogue, dense(platform).document_vectors)
            client.service.versions._retry = None
            await kit.until(lambda: "does not hold the vectors" in client.service.versions.problem)
            assert (await client.search(queries[0]))["version"] == 1
            local.delete_collection(name)
            fill_qdrant(local, name, platform.catalogue, dense(platform, other).document_vectors)
            client.service.versions._retry = None
            await kit.until(lambda: client.service.versions.present.champion.version == 2)
            # An engine that is down leaves nothing to answer with.
            local.delete_collection(name)
            response = await client.http.post("/v1/search", json={"query": "never asked before"})
            assert response.status_code == 503 and "recalled" in response.json()["detail"]

    asyncio.run(check())


def vars_of(model):
    return {name: getattr(model, name) for name in type(model).__dataclass_fields__}


def test_opensearch_answers_like_the_embedded_index(made, kit, monkeypatch):
    from opensearchpy import OpenSearch

    server = SmallOpenSearch()
    beside("corewrite_engines_conftest", "").threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    fill_opensearch(OpenSearch(url), "videos", made.catalogue, dense(made).document_vectors)
    monkeypatch.setenv("LOGIN", "reader:pass:word")
    opened = []
    monkeypatch.setattr("opensearchpy.OpenSearch", lambda *hosts, **k: opened.append(k) or OpenSearch(*hosts, **k))
    engine = {"kind": "opensearch", "url": url, "index": "videos", "login_env": "LOGIN", "timeout_ms": 20_000}

    async def check():
        queries = made.queries(3)
        _, expected, _ = await searched(made, kit, made.config(), queries)
        _, answers, _ = await searched(made, kit, made.config(ranker={"recall": engine}), queries)
        same(answers, expected)

    asyncio.run(check())
    assert not server.problems and opened[0]["http_auth"] == ("reader", "pass:word")
    server.shutdown()


@pytest.fixture(scope="module")
def redis_with_search():
    server = engines.RedisWithSearch()
    yield server
    server.stop()


def test_a_real_redis_serves_and_searches_by_settings_alone(platform, kit, redis_with_search, tmp_path):
    """`serve`, a promotion to another relevance model, `corewrite search`, and a Redis that dies."""
    client = redis_with_search.client()
    first = platform.first.relevance
    # All documents are candidates: the server's BM25 has another b, and which candidates are cut hangs on it.
    recall = default_spec().recall.model_copy(update={"original_candidates": 800})
    spec = default_spec().model_copy(update={"recall": recall}).model_dump_json()
    wide = platform.registry.save("spec", lambda f: (f / "fusion.yaml").write_text(spec) and None, {}).hash
    platform.promote(Candidate(platform.first.policy, first, wide))
    fill_redis(client, f"videos-{first[:12]}", platform.catalogue, dense(platform).document_vectors, algorithm="FLAT")
    engine = {"kind": "redis", "url": redis_with_search.url, "index": "videos-{relevance}", "timeout_ms": 20_000}
    queries = platform.queries(4)

    async def check():
        _, expected, _ = await searched(platform, kit, platform.config(), queries)
        config = platform.config(ranker={"recall": engine})
        ready, answers, _ = await searched(platform, kit, config, queries)
        assert ready["backends"]["engine"] == {"kind": "redis", "index": "videos-{relevance}"}
        same(answers, expected)
        assert all(a["results"] for a in answers)
        async with kit.running(config, kit.as_title(platform.catalogue)) as running:
            scalars = (model := cold_start(platform.catalogue)).scalars.copy()
            scalars[-1] = 0  # without pictures: other vectors
            other = platform.registry.save("relevance", type(model)(**{**vars_of(model), "scalars": scalars}).save, {}).hash
            fill_redis(client, f"videos-{other[:12]}", platform.catalogue, dense(platform).document_vectors)
            platform.promote(Candidate(platform.first.policy, other, wide))
            await kit.until(lambda: "does not hold the vectors" in running.service.versions.problem)
            assert (await running.search(queries[0]))["version"] == 2
            redis_with_search.stop()
            response = await running.http.post("/v1/search", json={"query": "never asked before"})
            assert response.status_code == 503 and "recalled" in response.json()["detail"]
            platform.rollback()

    file = platform.file(tmp_path / "corewrite.yaml", ranker={"recall": engine})
    plain = platform.file(tmp_path / "plain.yaml")
    lists = [json.loads(search_command(f, queries[1]).stdout)["results"] for f in (file, plain)]
    assert lists[0] and [r["id"] for r in lists[0]] == [r["id"] for r in lists[1]]
    asyncio.run(check())
    died = search_command(file, queries[1])
    assert died.exit_code == 1 and "Error 111 connecting" in died.output and isinstance(died.exception, SystemExit)
    redis_with_search.start()


def search_command(file, query):
    documents = f"documents: {file.parent / 'platform' / 'documents.parquet'}\n"
    if "documents:" not in file.read_text():
        file.write_text(documents + "".join(f"{k}: {json.dumps(v)}\n" for k, v in json.loads(file.read_text()).items()))
    return CliRunner().invoke(app, ["search", query, "--rewrite", "music", "-c", str(file), "--json"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("signals: {a: {kind: kserv}}", "ranker.signals.a: kind 'kserv' is unknown: there are embedded"),
        ("signals: {a: {kind: kserve, url: 'http://x', model: m}}", "ranker.signals.a.version: Field required"),
        ("signals: {a: {kind: onnx, folder: x, pin: abc}}", "ranker.signals.a.pin: "),
        ("recall: {kind: qdrant, url: 'http://x'}", "ranker.recall.collection: Field required"),
        (
            "recall: {kind: qdrant, url: 'http://x', collection: c, api_key: k}",
            "ranker.recall.api_key: unknown name; did you mean 'api_key_env'?",
        ),
    ],
)
def test_settings_that_are_wrong_are_named(tmp_path, text, said):
    (tmp_path / "corewrite.yaml").write_text(f"run: r\ndocuments: d\nranker:\n  {text}\n")
    with pytest.raises(ConfigError) as error:
        load_serve_config(tmp_path / "corewrite.yaml")
    assert f"corewrite.yaml:4: {said}" in str(error.value)


def test_a_server_s_file_of_earlier_versions_is_read_once_more(tmp_path):
    (tmp_path / "serve.yaml").write_text(
        "registry: r/registry\ndocuments: d.parquet\nport: 9000\n"
        "relevance: {kind: kserve, url: 'http://x', model: m, version: '1'}\n"
        "engine: {kind: qdrant, url: 'http://q', collection: c}\nlog: {folder: served, insecure: true}\n"
    )
    with pytest.warns(OldConfigWarning, match="line 3: `port` is `serve.port` now"):
        found = load_serve_config(tmp_path / "serve.yaml")
    assert (found.registry, found.documents, found.port, found.log.folder) == (
        Path("r/registry"), Path("d.parquet"), 9000, Path("served"),
    )  # fmt: skip
    assert found.what_ranks.signals["relevance"].model == "m" and found.what_ranks.recall.collection == "c"


def test_the_limit_of_a_rewrite_is_that_of_gate_and_training(tmp_path):
    file = tmp_path / "corewrite.yaml"
    file.write_text("run: r\ndocuments: d\nmax_new_tokens: 9\n")
    assert load_serve_config(file).rewriter.max_new_tokens == 9
    file.write_text("run: r\ndocuments: d\nmax_new_tokens: 9\nserve: {rewriter: {max_new_tokens: 7}}\n")
    assert load_serve_config(file).rewriter.max_new_tokens == 7


def test_a_key_that_is_not_set_is_named(made):
    with pytest.raises(ValueError, match="NO_SUCH_KEY"):
        build_app(made.config(relevance={"kind": "kserve", "url": "http://x", "model": "m", "version": "1",
                                         "token_env": "NO_SUCH_KEY"}))  # fmt: skip
