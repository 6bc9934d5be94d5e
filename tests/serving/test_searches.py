"""Searches through the whole application, with rewriters that behave well, badly, late or not at all."""

import asyncio
import json
import threading

import numpy as np
import pytest

FINAL = {"recall.candidates", "rawrank.dense", "finerank.relevance"}


def results(answer):
    return json.dumps(answer["results"])


def test_a_good_rewrite_moves_the_list_and_every_factor_multiplies_to_the_score(made, kit):
    async def check():
        async with kit.running(made.config(), kit.as_title(made.catalogue)) as client:
            moved = 0
            for query in made.queries(12):
                answer = await client.search(query, explain=True)
                assert answer["signal_status"] == dict.fromkeys(FINAL, "ok")
                assert answer["arm"] == "launch_2" and answer["rewrite_status"] == "ok" and len(answer["rewrites"]) == 1
                for result in answer["results"]:
                    assert np.prod(list(result["factors"].values())) == pytest.approx(result["score"], rel=1e-9)
                    assert 0.5 - 1e-9 <= result["factors"]["rewrite.relevance"] <= 2 + 1e-9
                moved += any(r["factors"]["rewrite.relevance"] != 1 for r in answer["results"])
                assert (await client.search(query))["rewrite_status"] == "ok"
            assert moved > 6

    asyncio.run(check())


async def late(queries, n):
    await asyncio.sleep(0.4)
    return [["something else"]] * len(queries)


async def fails(queries, n):
    from corewrite.serving.process import WorkerError

    raise WorkerError("died")


def says(value):
    async def behave(queries, n):
        return [value] * len(queries)

    return behave


SHORT = {"recall": 20, "rawrank": 20, "finerank": 20}


@pytest.mark.parametrize(
    ("behave", "changes", "status", "reason"),
    [
        (late, {"deadlines": SHORT}, "timeout", "late"),
        (fails, {}, "error", "failed"),
        (says(None), {}, "error", "garbage"),
        (says(float("nan")), {}, "error", "garbage"),
        (says([7]), {}, "error", "garbage"),
        (says(["x" * 10_000]), {}, "error", "garbage"),
        (says(["two\nlines"]), {}, "error", "garbage"),
        (says(["turned \u202e round"]), {}, "error", "garbage"),
        (says(["half \ud83d"]), {}, "error", "garbage"),
        (says([]), {}, "neutral", "nothing"),
        (says(["very Forbidden word"]), {"rewriter": {"blocklist": ["forbidden"]}}, "neutral", "blocked"),
        (says(["something else"]), {"filters": [{"kind": "pattern", "pattern": "thing +ELSE$"}]}, "neutral", "filtered"),
        (says(["something else"]), {"enabled": False}, "off", "off"),
        (says(["something else"]), {"arms": {"none": 1, "all_stages": 0}}, "off", "off"),
    ],
)  # fmt: skip
def test_without_a_usable_rewrite_the_answer_is_that_of_no_rewriter_byte_for_byte(made, kit, behave, changes, status, reason):
    async def check():
        async with kit.running(made.config(enabled=False), says([])) as bare:
            expected = [results(await bare.search(q, explain=True)) for q in made.queries(4)]
        async with kit.running(made.config(**changes), behave) as client:
            for query, plain in zip(made.queries(4), expected, strict=True):
                answer = await client.search(query, explain=True)
                assert answer["signal_status"] == dict.fromkeys(FINAL, status)
                # After a death the next queries may find the process still starting again.
                assert answer["rewrite_status"] in {reason, "starting" if reason == "failed" else reason}
                assert answer["rewrites"] == []
                for result in answer["results"]:  # where the stage names the absent factor, it is exactly 1
                    assert result["factors"].pop("rewrite.relevance", 1.0) == 1.0
                bare_results = json.loads(plain)
                assert results(answer) == json.dumps(bare_results)

    asyncio.run(check())


def test_a_rewrite_late_for_recall_counts_at_finerank_and_one_late_for_all_is_remembered(made, kit):
    release = asyncio.Event()

    async def slow(queries, n):
        await release.wait()
        return [[" ".join(made.catalogue.titles[3].split()[:3])]] * len(queries)

    async def check():
        query = made.queries(1)[0]
        deadlines = {"recall": 30, "rawrank": 60, "finerank": 10_000}
        async with kit.running(made.config(deadlines=deadlines), slow) as client:
            asyncio.get_running_loop().call_later(0.3, release.set)
            answer = await client.search(query, explain=True)
            assert answer["signal_status"] == {
                "recall.candidates": "timeout", "rawrank.dense": "timeout", "finerank.relevance": "ok"
            }  # fmt: skip
            assert any(r["factors"]["rewrite.relevance"] != 1 for r in answer["results"])
            # The candidates are those of no rewriter: only their order may differ.
            async with kit.running(made.config(enabled=False), slow) as bare:
                whole = await bare.search(query, depth=100)
            assert {r["id"] for r in answer["results"]} <= {r["id"] for r in whole["results"]}
        release.clear()
        async with kit.running(made.config(deadlines=SHORT), slow) as client:
            assert (await client.search(query))["rewrite_status"] == "late"
            release.set()
            await asyncio.sleep(0.05)
            again = await client.search(query)
            assert again["rewrite_status"] == "ok" and again["signal_status"] == dict.fromkeys(FINAL, "ok")

    asyncio.run(check())


def test_a_search_that_still_waits_is_not_dropped_as_stale(made, kit):
    async def slow(queries, n):
        await asyncio.sleep(0.15)
        return [["something else"]] * len(queries)

    async def check():
        deadlines = {"recall": 5_000, "rawrank": 5_000, "finerank": 5_000}
        rewriter = {"max_batch": 1, "max_wait_ms": 0, "stale_ms": 100}
        async with kit.running(made.config(deadlines=deadlines, rewriter=rewriter), slow) as client:
            answers = await asyncio.gather(*(client.search(query) for query in made.queries(3)))
            assert [answer["rewrite_status"] for answer in answers] == ["ok"] * 3

    asyncio.run(check())


def test_arms_are_sticky_have_their_shares_and_use_the_rewrite_where_they_should(made, kit):
    arms = {"none": 0.2, "finerank_only": 0.3, "all_stages": 0.5}

    async def check():
        async with kit.running(made.config(arms=arms), kit.as_title(made.catalogue)) as client:
            count = {"none": 0, "launch_1": 0, "launch_2": 0}
            for i in range(150):
                answer = await client.search("music", client_id=f"c{i}", depth=1)
                count[answer["arm"]] += 1
                assert (await client.search("music", client_id=f"c{i}", depth=1))["arm"] == answer["arm"]
                on = {"none": set(), "launch_1": {"finerank.relevance"}, "launch_2": FINAL}[answer["arm"]]
                assert {n for n, state in answer["signal_status"].items() if state == "ok"} == on
                assert {n for n, state in answer["signal_status"].items() if state == "off"} == FINAL - on
            assert 15 <= count["none"] <= 45 and 25 <= count["launch_1"] <= 65  # 30 and 45 expected of 150

    asyncio.run(check())


def test_shadow_asks_the_rewriter_and_uses_nothing(made, kit):
    async def check():
        query = made.queries(1)[0]
        async with kit.running(made.config(shadow=True), kit.as_title(made.catalogue)) as client:
            shadow = await client.search(query)
            await kit.until(lambda: bool(client.fakes.started[0].batches))
            assert shadow["signal_status"] == dict.fromkeys(FINAL, "off")
        async with kit.running(made.config(enabled=False), kit.as_title(made.catalogue)) as bare:
            assert results(await bare.search(query)) == results(shadow)
            assert not bare.fakes.started[0].batches

    asyncio.run(check())


def test_several_rewrites_are_averaged_within_the_bounds(made, kit):
    titles = [" ".join(t.split()[:3]) for t in made.catalogue.titles[40:160:40]]

    async def one(queries, n):
        return [titles[:n]] * len(queries)

    async def check():
        query = made.queries(2)[1]
        async with kit.running(made.config(), one) as client:
            three = await client.search(query, rewrites=3, explain=True)
            assert three["rewrites"] == titles
        singles = []
        for title in titles:
            async with kit.running(made.config(), says([title])) as client:
                found = await client.search(query, explain=True, depth=100)
                singles.append({r["id"]: r["factors"]["rewrite.relevance"] for r in found["results"]})
        compared = 0
        for result in three["results"]:
            alone = [s[result["id"]] for s in singles if result["id"] in s]
            if len(alone) == 3:
                compared += 1
                assert result["factors"]["rewrite.relevance"] == pytest.approx(np.exp(np.mean(np.log(alone))), rel=1e-9)
        assert compared > 3

    asyncio.run(check())


def test_a_relevance_model_that_fails_costs_its_stage_and_not_the_search(made, kit):
    async def check():
        query = made.queries(3)[2]
        async with kit.running(made.config(), kit.as_title(made.catalogue)) as client:
            version = client.service.versions.present
            full = version.cascades["all_stages"].signals["relevance"]
            own, failing = full.score, {"rewrites"}

            def score(texts, rows):
                if "all" in failing or ("rewrites" in failing and list(texts) != [query]):
                    raise ConnectionError("the model server is down")
                return own(texts, rows)

            full.score = score
            answer = await client.search(query)
            assert answer["signal_status"] == {
                "recall.candidates": "ok", "rawrank.dense": "ok", "finerank.relevance": "error"
            }  # fmt: skip
            failing.add("all")
            answer = await client.search(query, explain=True)
            assert answer["signal_status"]["finerank.original"] == "error" and len(answer["results"]) == 10
            assert "original.dense" in answer["results"][0]["factors"]  # what it was ranked by says so

            full.score = lambda texts, rows: np.where(rows >= 0, np.nan, 0.0) if list(texts) != [query] else own(texts, rows)
            answer = await client.search(query, explain=True)
            assert answer["signal_status"]["finerank.relevance"] == "error"
            assert all(r["factors"]["rewrite.relevance"] == 1 for r in answer["results"])

    asyncio.run(check())


def test_explain_tells_places_and_candidates_and_takes_a_given_rewrite(made, kit):
    async def check():
        query, other = made.queries(6)[0], made.queries(6)[5]
        async with kit.running(made.config(), says([])) as client:
            response = await client.http.post("/v1/explain", json={"query": query, "rewrite": f"{other}\x00\nsecond line"})
            told = response.json()
            assert told["rewrites"] == [other] and told["rewrite_status"] == "given"
            bare = await client.search(query, depth=100)
            place = {r["id"]: r["rank"] for r in bare["results"]}
            assert [r["rank_without"] for r in told["results"]] == [place.get(r["id"]) for r in told["results"]]
            assert told["candidates"]["rewrite_only"] > 0 and told["candidates"]["finerank"] >= 80
            for r in told["results"]:
                assert np.prod(list(r["factors"].values())) == pytest.approx(r["score"], rel=1e-9)
            top = [r["id"] for r in bare["results"][:10]]
            assert {d["id"] for d in told["dropped"]} == set(top) - {r["id"] for r in told["results"]}

    asyncio.run(check())


def test_a_rewrite_is_not_waited_for_where_the_spec_has_no_use_for_it(platform, kit):
    from corewrite.registry import Candidate

    text = """
    rawrank: {original: [{signal: dense, eps: 0.01}]}
    finerank: {original: [{signal: relevance, eps: 0.001}]}
    recall: {use_rewrite: %s}
    """

    def promoted(use):
        spec = platform.registry.save("spec", lambda f: (f / "fusion.yaml").write_text(text % use) and None, {})
        platform.promote(Candidate(platform.first.policy, platform.first.relevance, spec.hash))

    async def check():
        promoted("false")
        async with kit.running(platform.config(), kit.as_title(platform.catalogue)) as client:
            answer = await client.search("music")
            assert (answer["rewrites"], answer["rewrite_status"], answer["signal_status"]) == ([], "off", {})
        promoted("true")
        deadlines = {"recall": 50, "rawrank": 5_000, "finerank": 5_000}
        async with kit.running(platform.config(deadlines=deadlines), late) as client:
            answer = await client.search("music")
            # 0.4 s later it came, and there was no stage left that could use it.
            assert answer["signal_status"] == {"recall.candidates": "timeout"}
            assert (answer["rewrites"], answer["rewrite_status"]) == ([], "late")

    asyncio.run(check())


def test_a_search_that_hangs_turns_readiness_red_until_it_ends(made, kit, monkeypatch):
    monkeypatch.setattr("corewrite.serving.ranking_thread.HANG_SECONDS", 0.3)
    release = threading.Event()

    async def go():
        async with kit.running(made.config(), kit.as_title(made.catalogue)) as client:
            assert (await client.http.get("/readyz")).status_code == 200
            hanging = asyncio.create_task(client.service._thread.run(lambda: release.wait(20)))
            assert (await client.http.get("/readyz")).status_code == 200, "it may be only slow"
            await asyncio.sleep(0.4)
            red = await client.http.get("/readyz")
            assert (red.status_code, red.json()["detail"]) == (503, "a search hangs")
            release.set()
            await hanging
            assert (await client.http.get("/readyz")).status_code == 200

    asyncio.run(go())


def test_a_filtered_rewrite_is_counted_and_logged_under_its_reason(made, kit, tmp_path):
    async def check():
        filters = [{"kind": "pattern", "pattern": "else"}]
        log = {"folder": tmp_path / "log", "query_text": True}
        async with kit.running(made.config(filters=filters, log=log), says(["something else"])) as client:
            await client.search(made.queries(1)[0])
            metrics = (await client.http.get("/metrics")).text
        assert 'corewrite_rewrites_total{reason="filtered"} 1.0' in metrics
        (line,) = [json.loads(x) for f in (tmp_path / "log").glob("*.ndjson") for x in f.read_text().splitlines()]
        assert line["query_attributes"]["served"]["rewrite"] == "filtered"

    asyncio.run(check())
