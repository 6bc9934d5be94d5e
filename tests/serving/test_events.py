"""Events over HTTP: what users did stands in the log of what they did it to."""

import asyncio
import json
from pathlib import Path

import jsonschema
import pytest

from corewrite.logs import find_outcomes, read_log
from corewrite.logs.files import log_files

SCHEMA = Path(__file__).parents[3] / "shared" / "data" / "ubi" / "event.schema.json"


def event(query_id, action="click", **more):
    return {
        "action_name": action, "query_id": query_id, "client_id": "c1", "session_id": "s1",
        "timestamp": "2026-11-26T09:00:07Z",
        "event_attributes": {"object": {"object_id": "v1"}, "position": {"ordinal": 1}, **more},
    }  # fmt: skip


def test_a_search_and_what_became_of_it_are_read_back_together(made, kit, tmp_path):
    async def check():
        now = [1_800_000_000.0]
        config = made.config(log={"folder": tmp_path / "log", "query_text": True}, limits={"events": 4})
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            client.service._clock = lambda: now[0]
            answer = await client.search(made.queries(1)[0], client_id="c1", session_id="s1")
            hit = answer["results"][2]["id"]
            watched = {"object": {"object_id": hit, "object_id_type": "video"}, "position": {"ordinal": 3}}
            good = [
                {**event(answer["query_id"]), "timestamp": now[0] + 5, "event_attributes": watched},
                {
                    **event(answer["query_id"], "watch"), "timestamp": (now[0] + 9) * 1000, "message": "my name is Ann",
                    "event_attributes": {**watched, "watch_seconds": 30.0, "duration_seconds": 60, "face": "blue"},
                },
            ]  # fmt: skip
            bad = [{**event("q"), "timestamp": "yesterday"}, {"query_id": "q"}]
            response = await client.http.post("/v1/events", json={"events": [good[0], bad[0], good[1], bad[1]]})
            assert response.status_code == 200, response.text
            told = response.json()
            assert told["accepted"] == 2 and [r["index"] for r in told["rejected"]] == [1, 3]
            assert "neither ISO 8601 nor an epoch" in told["rejected"][0]["problem"]
            assert "action_name" in told["rejected"][1]["problem"]
            none = await client.http.post("/v1/events", json={"events": bad})
            assert none.status_code == 200 and (none.json()["accepted"], len(none.json()["rejected"])) == (0, 2)
            many = await client.http.post("/v1/events", json={"events": good * 3})
            assert many.status_code == 422 and "at most 4 are taken" in many.text
            empty = await client.http.post("/v1/events", json={"events": []})
            assert empty.status_code == 422
            # The session goes on for long enough that the search is not censored.
            now[0] += 3_600
            await client.search("snow", client_id="c2")
            assert "corewrite_events_total 2.0" in (await client.http.get("/metrics")).text
        return answer, hit

    answer, hit = asyncio.run(check())
    files = log_files(tmp_path / "log")
    text = "".join(f.read_text() for f in files)
    assert "Ann" not in text and "blue" not in text and '"c1"' not in text
    outcomes = find_outcomes(read_log(files))
    place = outcomes.query_id.tolist().index(answer["query_id"])
    assert outcomes.clicked[place] == {hit: 30.0} and outcomes.outcome[place] == "satisfied"
    events = [json.loads(line) for line in text.splitlines() if "action_name" in line]
    search = next(json.loads(line) for line in text.splitlines() if answer["query_id"] in line and "user_query" in line)
    assert {e["client_id"] for e in events} == {search["client_id"]}, "one hash for both"
    assert {e["session_id"] for e in events} == {search["query_attributes"]["session_id"]}
    if not SCHEMA.is_file():
        pytest.skip(f"{SCHEMA} is not here")
    # The schema says oneOf where the known names are among all texts, so that none of them is valid: anyOf is meant.
    schema = json.loads(SCHEMA.read_text().replace('"oneOf"', '"anyOf"'))
    for line in events:
        jsonschema.validate(line, schema, format_checker=jsonschema.FormatChecker())


def test_without_a_log_or_room_in_it_the_collector_is_told(made, kit, tmp_path):
    async def check():
        async with kit.running(made.config(), kit.as_title(made.catalogue)) as client:
            response = await client.http.post("/v1/events", json={"events": [event("q")]})
            assert response.status_code == 409 and "set log.folder" in response.json()["detail"]
        config = made.config(log={"folder": tmp_path / "log"})
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            client.service._ubi.put = lambda line: False
            response = await client.http.post("/v1/events", json={"events": [event("q")]})
            assert response.status_code == 429 and "first 0 usable events" in response.json()["detail"]

    asyncio.run(check())
