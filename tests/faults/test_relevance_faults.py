"""A model server that is down, slow, or answers NaN: the real client of it, behind the cascade's rules."""

import statistics
import time

import pytest


@pytest.fixture(scope="module")
def model_server(platform, queries, kit):
    started = kit.ModelServer(platform.catalogue, frozenset(queries))
    yield started
    started.http.shutdown()


@pytest.fixture(scope="module")
def served(model_server, platform, kit, tmp_path_factory):
    """A server with the rewrite at finerank only, so that an answer without it there is one without it anywhere."""
    arms = {"finerank_only": 1, "all_stages": 0}
    # Without a cache of scores: every search depends on the model server.
    relevance = {"kind": "kserve", "url": model_server.url, "model": "m", "version": "1", "timeout_ms": 200, "cache": 0}
    started = kit.start(platform, tmp_path_factory.mktemp("server"), relevance=relevance, arms=arms)
    yield started
    started.kill()


def used(a):
    return (
        a.body["signal_status"]["finerank.relevance"] in {"ok", "neutral"}
        and "finerank.original" not in a.body["signal_status"]
    )


def load_of(kit, served, queries):
    # Two at a time: what is tested is that they are answered, not how many.
    return kit.load.Load(served.port, queries, threads=2)


def test_nan_for_rewrites_leaves_the_ranking_as_it_is_without_them(served, model_server, queries, plain, kit, note):
    with load_of(kit, served, queries) as load:
        load.until(used, time.monotonic(), 15, run=3)
        model_server.fault = "NaN for rewrites"
        began = time.monotonic()
        load.until(lambda a: a.body["signal_status"]["finerank.relevance"] == "error", began, 10, run=3)
        time.sleep(1)
        mended = time.monotonic()
        model_server.fault = ""
        recovery = load.until(used, mended, 10, run=3)
    kit.load.check(load.answers, plain)
    broken = load.since(began + 0.3, mended)
    # A rewrite may happen to be another query of this test, which the model server scores.
    broken = [a for a in broken if not set(a.body["rewrites"]) & set(queries)]
    for a in broken:
        assert a.neutral and kit.load.ranking(a) == plain[a.query]
    assert any(a.body["rewrites"] for a in broken)  # there was a rewrite: it could not be scored
    note("model server answers NaN for rewrites", broken, recovery_s=recovery)


@pytest.mark.parametrize("fault", ["down", "slow", "NaN"])
def test_a_model_server_that_is_down_slow_or_answers_nan(served, model_server, queries, plain, cascade, kit, note, fault):
    """The original signal is gone too: the stage before gives the order, and the answer says so."""
    before = {q: kit.ranked(cascade, q, stage="rawrank") for q in queries}
    with load_of(kit, served, queries) as load:
        load.until(used, time.monotonic(), 15, run=3)
        model_server.fault = fault
        began = time.monotonic()
        load.until(lambda a: "finerank.original" in a.body["signal_status"], began, 10, run=3)
        time.sleep(3)
        mended = time.monotonic()
        model_server.fault = ""
        recovery = load.until(used, mended, 10, run=3)
    kit.load.check(load.answers, plain)
    broken = [a for a in load.since(began + 0.3, mended) if "finerank.original" in a.body["signal_status"]]
    assert broken and all(a.body["signal_status"]["finerank.original"] == "error" for a in broken)
    for a in broken:
        assert a.neutral and a.body["rewrites"] == [] and kit.load.ranking(a) == before[a.query]
    if fault == "slow":
        # It is left alone after three time-outs of 0.2 s, and not waited for thrice by every search.
        assert statistics.median(a.seconds for a in broken) < 0.3
        assert served.metric("corewrite_relevance_refused") > 0
    note(f"model server {fault}", broken, recovery_s=recovery)
