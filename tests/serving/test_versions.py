"""Promotion, rollback, damaged artifacts and the kill switch, under requests."""

import asyncio
import time

import pytest

from corewrite.experiment import RolloutConfig, RolloutState
from corewrite.experiment.rollout.file import save_rollout
from corewrite.serving.problems import without_places


def marked(text):
    async def behave(queries, n):
        await asyncio.sleep(0.002)
        return [[text]] * len(queries)

    return behave


async def stream(client, queries, answers, stop):
    i = 0
    while not stop.is_set():
        response = await client.http.post("/v1/search", json={"query": f"{queries[i % len(queries)]} {i}", "depth": 3})
        answers.append((response.status_code, response.json()))
        i += 1


def test_promotion_and_rollback_reach_a_running_server_without_a_failed_or_mixed_answer(platform, kit):
    first, second = platform.first, platform.second
    fakes = kit.Fakes(marked("x"), {first.policy: marked("rewrite one"), second.policy: marked("rewrite two")})

    async def check():
        async with kit.running(platform.config(), marked("x"), fakes) as client:
            answers, stop = [], asyncio.Event()
            streams = [asyncio.create_task(stream(client, platform.queries(5), answers, stop)) for _ in range(3)]

            async def served(policy, version):
                began = time.monotonic()
                await kit.until(lambda: answers[-1][1]["policy"] == policy and answers[-1][1]["version"] == version)
                return time.monotonic() - began

            await kit.until(lambda: len(answers) > 10)
            seconds = []
            platform.promote(second)
            seconds.append(await served(second.policy, 2))
            for version in range(3, 7):
                platform.rollback() if version % 2 else platform.promote(second)
                seconds.append(await served((first if version % 2 else second).policy, version))
            stop.set()
            await asyncio.gather(*streams)
            assert max(seconds) < 2, seconds
            assert {status for status, _ in answers} == {200}
            text = {first.policy: ["rewrite one"], second.policy: ["rewrite two"]}
            policy = {1: first.policy, 2: second.policy, 3: first.policy, 4: second.policy, 5: first.policy, 6: second.policy}
            for _, answer in answers:
                assert answer["policy"] == policy[answer["version"]]
                assert answer["rewrites"] == text[answer["policy"]]
            # The one before stays loaded: each policy was started once, however often they took turns.
            assert len(fakes.started) == 2 and not any(p.killed for p in fakes.started)

    asyncio.run(check())


@pytest.mark.parametrize("damage", ["changed", "gone", "will not start"])
def test_a_champion_that_cannot_be_loaded_leaves_the_one_before_in_service(platform, kit, damage):
    fakes = kit.Fakes(marked("x"))

    async def check():
        async with kit.running(platform.config(), marked("x"), fakes) as client:
            folder = platform.registry.root / "artifacts" / "policy" / platform.second.policy
            platform.promote(platform.second)
            if damage == "changed":
                (folder / "prompt_template.json").write_text("{}")
            elif damage == "gone":
                folder.rename(folder.parent.parent / "elsewhere")
            else:
                fakes.refuse = True
            await kit.until(lambda: bool(client.service.versions.problem))
            answer = await client.search("music")
            assert answer["policy"] == platform.first.policy and answer["version"] == 1
            ready = await client.http.get("/readyz")
            assert ready.status_code == 200 and ready.json()["problem"] and ready.json()["version"] == 1
            if damage == "gone":  # restored: taken up at the next try
                (folder.parent.parent / "elsewhere").rename(folder)
                client.service.versions._retry = None
                await kit.until(lambda: client.service.versions.present.champion.version == 2)
                assert not client.service.versions.problem

    asyncio.run(check())


def test_without_a_champion_the_server_says_so_and_takes_the_first_one_up(platform, kit):
    from corewrite.registry import Registry

    async def check():
        empty = platform.folder / "empty"
        Registry(empty)
        async with kit.running(platform.config(registry=empty), marked("x")) as client:
            response = await client.http.post("/v1/search", json={"query": "music"})
            assert response.status_code == 503 and "no champion" in response.json()["detail"]
            assert (await client.http.get("/readyz")).status_code == 503
            assert (await client.http.get("/healthz")).status_code == 200

    asyncio.run(check())


def test_a_registry_that_cannot_be_read_stops_nothing(platform, kit):
    async def check():
        async with kit.running(platform.config(), marked("x")) as client:
            platform.registry.root.rename(platform.folder / "away")
            await kit.until(lambda: bool(client.service.versions.problem))
            assert (await client.search("music"))["rewrites"] == ["x"]

    asyncio.run(check())


def test_the_kill_switch_by_call_by_file_and_across_workers(platform, kit, monkeypatch):
    monkeypatch.setenv("SERVE_KEY", "s3cret")

    async def check():
        config = platform.config(api_key_env="SERVE_KEY")
        async with (
            kit.running(config, marked("x"), **{"X-API-Key": "s3cret"}) as one,
            kit.running(config, marked("x"), **{"X-API-Key": "s3cret"}) as other,
        ):
            assert (await one.search("music"))["rewrites"] == ["x"]
            killed = (await one.http.post("/v1/admin/kill")).json()
            assert killed == {"killed": True, "persisted": True}
            answer = await one.search("music")
            assert answer["rewrites"] == [] and set(answer["signal_status"].values()) == {"off"}
            assert (await one.http.post("/v1/rewrite", json={"query": "music"})).json()["results"][0]["status"] == "off"
            await kit.until(lambda: other.service.kill.on, 1)
            assert (await other.search("music"))["rewrites"] == []
            assert (await other.http.post("/v1/admin/resume")).json() == {"killed": False, "persisted": True}
            await kit.until(lambda: not one.service.kill.on, 1)
            assert (await one.search("music"))["rewrites"] == ["x"]
            config.kill_path.touch()
            await kit.until(lambda: one.service.kill.on and other.service.kill.on, 1)

    asyncio.run(check())


def test_a_kill_file_that_cannot_be_looked_at_leaves_the_switch_as_it_was_and_is_looked_at_again(platform, kit):
    looks = []

    class Unreadable:
        def exists(self):
            looks.append(self)
            raise PermissionError(13, "Permission denied")

    async def check():
        async with kit.running(platform.config(), marked("x")) as client:
            switch = client.service.kill
            path, switch.path = switch.path, Unreadable()
            await kit.until(lambda: len(looks) > 1, 1)
            assert not switch.on
            switch.path = path
            path.touch()
            await kit.until(lambda: switch.on, 1)

    asyncio.run(check())


@pytest.mark.parametrize("damage", ["will not start", "gone"])
def test_a_first_champion_whose_policy_cannot_be_loaded_is_searched_without_rewrites(platform, kit, damage):
    fakes = kit.Fakes(marked("x"))
    fakes.refuse = damage == "will not start"
    folder = platform.registry.root / "artifacts" / "policy" / platform.first.policy

    async def check():
        async with kit.running(platform.config(enabled=False), marked("x")) as bare:
            expected = (await bare.search("music"))["results"]
        if damage == "gone":
            folder.rename(platform.folder / "elsewhere")
        async with kit.running(platform.config(), marked("x"), fakes) as client:
            answer = await client.search("music")
            assert answer["results"] == expected and answer["rewrite_status"] == "starting"
            assert set(answer["signal_status"].values()) == {"error"} and answer["policy"] == platform.first.policy
            ready = await client.http.get("/readyz")
            assert ready.status_code == 503 and without_places(client.service.versions.problem) in ready.json()["detail"]
            fakes.refuse = False
            if damage == "gone":
                (platform.folder / "elsewhere").rename(folder)
            client.service.versions._retry = None
            await kit.until(lambda: client.service.ready)
            assert (await client.search("music"))["rewrites"] == ["x"]

    asyncio.run(check())


def test_a_rollout_keeps_a_champion_whose_policy_cannot_be_loaded_from_everybody(platform, kit):
    platform.promote(platform.second)
    save_rollout(platform.config().rollout_path, RolloutState(2, 1, 0.0), RolloutConfig())
    fakes = kit.Fakes(marked("x"))
    fakes.refuse = True

    async def check():
        async with kit.running(platform.config(), marked("x"), fakes) as client:
            assert (await client.http.post("/v1/search", json={"query": "music"})).status_code == 503

    asyncio.run(check())
