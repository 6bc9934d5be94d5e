"""Backends that hang: a search is answered within its own time, the next ones at once, and the server starts."""

import asyncio
import threading
import time

import numpy as np
import pytest

from corewrite.serving import service as service_module

GO = threading.Event()


class HangingEngine:
    """Recalls nothing until `GO`."""

    def __init__(self, documents):
        self.asked = 0

    def search_text(self, texts, k):
        self.asked += 1
        GO.wait(60)
        return np.tile(np.arange(min(k, 20)), (len(texts), 1))


class HangingScorer:
    model_hash = "h"

    def score(self, texts, rows):
        GO.wait(60)
        return np.where(rows >= 0, 0.5, 0.0)


def make_engine(documents):
    return HangingEngine(documents)


def make_scorer(documents):
    return HangingScorer()


@pytest.fixture
def quick(monkeypatch):
    """Limits of a test; whatever hangs goes on at the end."""
    GO.clear()
    monkeypatch.setattr("corewrite.deployment.recall._CALL_SECONDS", 0.3)
    monkeypatch.setattr("corewrite.deployment.open._CALL_SECONDS", 0.3)
    monkeypatch.setattr("corewrite.deployment.open._CHECK_SECONDS", 0.5)
    yield
    GO.set()


async def timed(client, query):
    began = time.monotonic()
    response = await client.http.post("/v1/search", json={"query": query, "client_id": "c"})
    return time.monotonic() - began, response


def test_an_engine_that_hangs_costs_its_limit_once_and_then_nothing(made, kit, quick, monkeypatch):
    monkeypatch.setattr(service_module, "HANG_SECONDS", 0.2)

    async def check():
        config = made.config(ranker={"recall": {"kind": "python", "factory": f"{__name__}:make_engine"}})
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            seconds, response = await timed(client, "lion")
            assert response.status_code == 503 and seconds < 2
            for i in range(20):
                seconds, response = await timed(client, f"q{i}")
                assert response.status_code == 503 and seconds < 0.5
            ready = await client.http.get("/readyz")
            assert ready.status_code == 503 and "hangs" in ready.json()["detail"]
            GO.set()
            await asyncio.sleep(1.2)
            assert (await timed(client, "lion"))[1].status_code == 200
            assert (await client.http.get("/readyz")).status_code == 200

    asyncio.run(check())


def test_a_model_that_hangs_costs_its_limit_and_the_stage_before_answers(made, kit, quick):
    async def check():
        began = time.monotonic()
        signals = {"relevance": {"kind": "python", "factory": f"{__name__}:make_scorer", "version": "1", "cache": 0}}
        config = made.config(ranker={"signals": signals}, relevance=signals["relevance"])
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            assert time.monotonic() - began < 20, "the server starts"
            for i in range(6):
                seconds, response = await timed(client, f"q{i}")
                assert response.status_code == 200 and response.json()["results"]
                assert response.json()["signal_status"]["finerank.original"] == "error"
                assert seconds < (2 if i < 3 else 0.5)

    asyncio.run(check())


def test_whatever_holds_the_ranking_a_search_does_not_outlast_its_own_time(made, kit, monkeypatch):
    """A model of the process itself, which no client can be cut off from."""
    entered, go = threading.Event(), threading.Event()

    async def check():
        deadlines = {"recall": 50, "rawrank": 50, "finerank": 50, "search": 400}
        async with kit.running(made.config(deadlines=deadlines), kit.as_title(made.catalogue)) as client:
            cascade = client.service.versions.present.cascades["all_stages"]
            finerank = type(cascade).finerank

            def stuck(self, *arguments):
                entered.set()
                go.wait(30)
                return finerank(self, *arguments)

            monkeypatch.setattr(type(cascade), "finerank", stuck)
            seconds, response = await timed(client, "lion")
            assert entered.is_set() and 0.3 < seconds < 2
            answer = response.json()
            assert answer["results"] and answer["signal_status"]["finerank.original"] == "error"
            # The one thread is taken: those behind have nothing to answer with and say so in time, or are not let in at all.
            waited = await asyncio.gather(*(timed(client, f"q{i}") for i in range(60)))
            assert {r.status_code for _, r in waited} == {429, 503} and max(s for s, _ in waited) < 2
            assert "deadlines.search" in waited[0][1].json()["detail"]
            go.set()
            monkeypatch.undo()
            seconds, response = await timed(client, "lion")
            assert response.status_code == 200 and "finerank.original" not in response.json()["signal_status"]

    try:
        asyncio.run(check())
    finally:
        go.set()
