"""A rollout as a server follows it: who gets which version, what is written down, and what a damaged file changes (nothing)."""

import asyncio
import hashlib
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.cli.serve_settings import read_serve_settings
from corewrite.cycle.steps.rollout import rollout_file, rollout_step
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.replay import replay_log
from corewrite.deployment.settings import RankerSettings
from corewrite.experiment import RolloutConfig, RolloutState, observe
from corewrite.experiment.rollout.file import save_rollout
from corewrite.experiment.rollout.searches import rollout_searches
from corewrite.fusion import default_spec
from corewrite.logs import LogError
from corewrite.logs.files import log_files

SHADOW, ONE, TEN, HALF = range(4)


def never(pairs):
    """No two texts find the same."""
    return np.zeros(len(pairs))


def bundled(catalogue):
    """Opens what the bundled model and the embedded indexes ranked."""
    return RankerOpener(RankerSettings(), catalogue)


def says(text):
    async def behave(queries, n):
        await asyncio.sleep(0.001)
        return [[text]] * len(queries)

    return behave


@pytest.fixture
def fakes(platform, kit):
    return kit.Fakes(says("x"), {platform.first.policy: says("rewrite one"), platform.second.policy: says("rewrite two")})


def rollout(platform, stage, champion=2, previous=1, **changes):
    state = replace(RolloutState(champion, previous, 0.0, stage=stage), **changes)
    save_rollout(platform.folder / "ramp.json", state, RolloutConfig())


def another_spec(platform):
    """The second policy under a spec artifact of its own."""
    text = default_spec().model_dump_json() + " "
    spec = platform.registry.save("spec", lambda f: (f / "fusion.yaml").write_text(text) and None, {})
    return replace(platform.second, spec=spec.hash)


def treated(client, champion, share):
    """The hash written out."""
    digest = hashlib.sha256(f"ramp-{champion}\x1f{client}".encode()).hexdigest()
    return int(digest[:13], 16) / 2**52 < share


def lines_of(folder):
    return [json.loads(line) for path in log_files(folder) for line in path.read_text("utf-8").splitlines()]


async def share_is(kit, client, share):
    def there():
        place = client.service.versions.rollout
        return share is None if place is None else place.share == share

    await kit.until(there)


async def who_has(client, clients, version):
    answers = {c: await client.search("music", client_id=c, depth=2) for c in clients}
    for answer in answers.values():
        assert answer["rewrites"] == ["rewrite two" if answer["version"] == version else "rewrite one"]
    return {c for c, answer in answers.items() if answer["version"] == version}


def test_a_rollout_decides_by_the_clients_hash_and_moves_on_without_a_restart(platform, kit, fakes):
    clients = [f"c{i}" for i in range(80)]
    rollout(platform, TEN)
    platform.promote(platform.second)

    async def check():
        async with kit.running(platform.config(), says("x"), fakes) as client:
            some = await who_has(client, clients, 2)
            assert some == {c for c in clients if treated(c, 2, 0.1)} and some
            nobody = await client.search("music")
            assert (nobody["version"], nobody["policy"], nobody["ramp"]) == (1, platform.first.policy, None)
            rewritten = {c: (await client.http.post("/v1/rewrite", json={"query": "music", "client_id": c})).json()
                         for c in clients}  # fmt: skip
            assert {c for c, r in rewritten.items() if r["version"] == 2} == some
            explained = (await client.http.post("/v1/explain", json={"query": "music", "client_id": min(some)})).json()
            assert explained["version"] == 2
            ready = (await client.http.get("/readyz")).json()
            assert (ready["version"], ready["ramp"]) == (1, {"champion": 2, "share": 0.1})
            assert "corewrite_ramp_share 0.1" in (await client.http.get("/metrics")).text

            rollout(platform, HALF)
            await share_is(kit, client, 0.5)
            half = await who_has(client, clients, 2)
            assert half == {c for c in clients if treated(c, 2, 0.5)} and half > some
            assert {(await client.search("music", client_id=c))["ramp"] for c in half} == {"treatment"}
            assert {(await client.search("music", client_id=c))["ramp"] for c in set(clients) - half} == {"control"}

            rollout(platform, HALF, status="complete")
            await share_is(kit, client, None)
            assert await who_has(client, clients, 2) == set(clients)
            answer = await client.search("music")
            assert (answer["version"], answer["ramp"]) == (2, None)
            assert client.service.versions.switches == 1 and len(fakes.started) == 2

    asyncio.run(check())


def test_a_rollout_written_while_the_champion_is_loaded_comes_before_its_first_answer(platform, kit, fakes):
    """A cycle writes it just after it promotes: nobody is to see the champion in between."""

    async def check():
        async with kit.running(platform.config(), says("x"), fakes) as client:
            versions = client.service.versions
            make = versions._make

            def slow(policy, folder):
                rewriter = make(policy, folder)
                opens = rewriter.open

                async def open():
                    rollout(platform, ONE)
                    await opens()

                rewriter.open = open
                return rewriter

            versions._make = slow
            platform.promote(platform.second)
            await kit.until(lambda: versions.present.champion.version == 2)
            assert versions.rollout.share == 0.01 and (await client.search("music"))["version"] == 1

    asyncio.run(check())


def test_the_run_folder_of_a_cycle_is_followed_by_its_name_alone(platform):
    assert rollout_file(platform.folder) == read_serve_settings(platform.folder, None).rollout_path
    assert platform.config(rollout="elsewhere.json").rollout_path.name == "elsewhere.json"


def test_a_rollout_of_another_version_is_none(platform, kit, fakes):
    platform.promote(platform.second)
    rollout(platform, TEN, champion=7, previous=1)

    async def check():
        async with kit.running(platform.config(), says("x"), fakes) as client:
            assert await who_has(client, ["a", "b", "c"], 2) == {"a", "b", "c"}

    asyncio.run(check())


def test_the_version_before_may_be_older_than_the_last_and_is_found_in_the_log_of_decisions(platform, kit, fakes):
    platform.promote(platform.second)
    platform.promote(another_spec(platform))
    rollout(platform, TEN, champion=3, previous=1)

    async def check():
        async with kit.running(platform.config(), says("x"), fakes) as client:
            clients = [f"c{i}" for i in range(40)]
            assert await who_has(client, clients, 3) == {c for c in clients if treated(c, 3, 0.1)}
            answer = await client.search("music")
            assert (answer["version"], answer["policy"], answer["spec"]) == (1, platform.first.policy, platform.first.spec)

    asyncio.run(check())


def test_a_rollback_under_traffic_takes_the_champion_from_everybody(platform, kit, fakes):
    async def stream(client, k, answers, stop):
        i = 0
        while not stop.is_set():
            body = {"query": f"music {i}", "client_id": f"c{k}-{i % 20}", "depth": 2}
            response = await client.http.post("/v1/search", json=body)
            answers.append((time.monotonic(), response.status_code, response.json()))
            i += 1

    async def check():
        async with kit.running(platform.config(), says("x"), fakes) as client:
            answers, stop = [], asyncio.Event()
            streams = [asyncio.create_task(stream(client, k, answers, stop)) for k in range(3)]
            await kit.until(lambda: len(answers) > 10)
            # As a cycle does: the decision, then its rollout.
            platform.promote(platform.second)
            rollout(platform, HALF)
            await kit.until(lambda: any(a["version"] == 2 for _, _, a in answers))
            await asyncio.sleep(0.2)
            # As the rollout's stop does: its state, then the decision.
            rollout(platform, HALF, status="rolled back")
            await asyncio.sleep(0.3)
            state_only = time.monotonic()
            await asyncio.sleep(0.2)
            platform.rollback()
            await kit.until(lambda: answers[-1][2]["version"] == 3)
            stop.set()
            await asyncio.gather(*streams)
            assert {status for _, status, _ in answers} == {200}
            by_version = {1: (platform.first.policy, ["rewrite one"]), 2: (platform.second.policy, ["rewrite two"])}
            by_version[3] = by_version[1]
            for _, _, answer in answers:
                assert (answer["policy"], answer["rewrites"]) == by_version[answer["version"]]
                if answer["version"] == 2:
                    assert answer["ramp"] == "treatment"
            assert 2 not in {a["version"] for at, _, a in answers if at > state_only}
            assert {a["version"] for _, _, a in answers} == {1, 2, 3}
            assert len(fakes.started) == 2 and not any(p.killed for p in fakes.started)

    asyncio.run(check())


def test_a_damaged_rollout_leaves_every_client_where_it_is(platform, kit, fakes):
    clients = [f"c{i}" for i in range(40)]
    file = platform.folder / "ramp.json"
    half = {c for c in clients if treated(c, 2, 0.5)}

    async def check():
        rollout(platform, HALF)
        platform.promote(platform.second)
        async with kit.running(platform.config(), says("x"), fakes) as client:
            assert await who_has(client, clients, 2) == half
            for damage in (
                "{",
                "[" * 100_000,
                '{"state": "\\ud800", "config": {}}',
                '{"state": 1, "config": {}}',
                "[]",
                '{"state": "{}"}',
            ):
                file.write_text(damage)
                await kit.until(lambda: "ramp.json" in client.service.versions.problem)
                assert await who_has(client, clients, 2) == half
                ready = await client.http.get("/readyz")
                assert ready.status_code == 200 and "damaged" in ready.json()["problem"]
                rollout(platform, HALF)
                await kit.until(lambda: not client.service.versions.problem)
            rollout(platform, 9)  # a stage that is none of the settings'
            await kit.until(lambda: bool(client.service.versions.problem))
            assert await who_has(client, clients, 2) == half
        # A server that starts meanwhile does not know who is to get the champion: nobody. A rollback is for all even now.
        async with kit.running(platform.config(), says("x"), fakes) as client:
            assert await who_has(client, clients, 2) == set() and "damaged" in client.service.versions.problem
            platform.rollback()
            await kit.until(lambda: client.service.versions.present.champion.version == 3)
            answers = [await client.search("music", client_id=c) for c in clients]
            assert {(a["version"], a["policy"]) for a in answers} == {(3, platform.first.policy)}
            file.unlink()
            await kit.until(lambda: not client.service.versions.problem)

    asyncio.run(check())


def test_a_champion_promoted_while_the_rollout_is_damaged_goes_to_nobody(platform, kit, fakes):
    async def check():
        async with kit.running(platform.config(), says("x"), fakes) as client:
            (platform.folder / "ramp.json").write_text("{")
            await kit.until(lambda: bool(client.service.versions.problem))
            platform.promote(platform.second)
            await kit.until(lambda: client.service.versions.present.champion.version == 2)
            assert await who_has(client, ["a", "b", "c"], 2) == set()
            rollout(platform, HALF, status="complete")
            await kit.until(lambda: not client.service.versions.problem)
            assert await who_has(client, ["a", "b", "c"], 2) == {"a", "b", "c"}

    asyncio.run(check())


def test_a_rollback_is_for_all_though_the_rollout_cannot_be_read(platform, kit, fakes):
    platform.promote(platform.second)
    platform.promote(another_spec(platform))
    (platform.folder / "ramp.json").write_text("{")

    async def check():
        async with kit.running(platform.config(), says("x"), fakes) as client:
            assert (await client.search("music", client_id="a"))["version"] == 2  # nobody has version 3
            platform.rollback()  # to the triple of version 2; before that was version 1
            await kit.until(lambda: client.service.versions.present.champion.version == 4)
            answer = await client.search("music", client_id="a")
            assert (answer["version"], answer["policy"], answer["ramp"]) == (4, platform.second.policy, None)
            assert "damaged" in client.service.versions.problem

    asyncio.run(check())


def test_where_the_version_before_cannot_be_loaded_the_champion_is_left_aside(platform, kit, fakes):
    async def check():
        async with kit.running(platform.config(), says("x"), fakes) as client:
            rollout(platform, TEN, previous=9)
            platform.promote(platform.second)
            await kit.until(lambda: "version 9" in client.service.versions.problem)
            assert (await client.search("music"))["version"] == 1
            assert [p.killed for p in fakes.started] == [False, True]  # the champion's, which nobody is to see
            rollout(platform, TEN)
            client.service.versions._retry = None
            await share_is(kit, client, 0.1)
            assert not client.service.versions.problem

    asyncio.run(check())


def test_in_the_shadow_stage_the_champion_answers_unseen_and_the_rollout_can_read_it(platform, kit, tmp_path):
    async def second(queries, n):
        # Of the 30 queries six get nothing, three get rubbish.
        kinds = [int(q.text.split()[-1]) for q in queries]
        return [[] if k < 6 else ["x" * 10_000] if k < 9 else ["rewrite two"] for k in kinds]

    fakes = kit.Fakes(says("x"), {platform.first.policy: says("rewrite one"), platform.second.policy: second})
    log = tmp_path / "log"
    rollout(platform, SHADOW)
    platform.promote(platform.second)
    began = time.time()

    async def check():
        config = platform.config(log={"folder": log, "query_text": True, "counterfactual_share": 1})
        async with kit.running(config, says("x"), fakes) as client:
            for i in range(30):
                answer = await client.search(f"music {i}", client_id=f"c{i}")
                assert (answer["version"], answer["ramp"], answer["rewrites"]) == (1, "control", ["rewrite one"])
                # One at a time: what comes after an answer may overtake that of another.
                await kit.until(lambda i=i: client.service._ubi.written == i + 1)
            assert (await client.search("music 29"))["version"] == 1  # without a client: in no arm, so no shadow either
            await kit.until(lambda: client.service._ubi.written == 31)
            assert 'corewrite_ramp_searches_total{arm="shadow"} 30.0' in (await client.http.get("/metrics")).text
            rollout(platform, HALF)
            await share_is(kit, client, 0.5)
            for i in range(40):
                await client.search(f"music {9 + i % 20}", client_id=f"d{i}")
                await kit.until(lambda i=i: client.service._ubi.written == 32 + i)

    asyncio.run(check())
    lines = lines_of(log)
    first, nobody, later = lines[:30], lines[30], lines[31:]
    shadows = [line["query_attributes"]["served"]["shadow"] for line in first]
    assert {s["version"] for s in shadows} == {2} and {s["policy"] for s in shadows} == {platform.second.policy}
    assert [s["rewrites"] for s in shadows] == [[]] * 9 + [["rewrite two"]] * 21
    assert all(len(s["hit_ids"]) == 10 for s in shadows)
    assert {json.dumps(line["query_attributes"]["served"]["ramp"]) for line in first} == {
        '{"arm": "control", "champion": 2, "share": 0.0}'
    }
    served = nobody["query_attributes"]["served"]
    assert (served["version"], served["ramp"]["arm"], served["shadow"]) == (1, None, None)
    for i, line in enumerate(later):
        arm = "treatment" if treated(f"d{i}", 2, 0.5) else "control"
        served = line["query_attributes"]["served"]
        assert (served["version"], served["ramp"]) == (
            2 if arm == "treatment" else 1,
            {"arm": arm, "champion": 2, "share": 0.5},
        )
        assert served["shadow"] is None

    files = log_files(log)
    table = rollout_searches(files, champion=2, share=0.0).table
    assert table["error"].to_pylist() == [False] * 6 + [True] * 3 + [False] * 21
    assert table["neutral"].to_pylist() == [True] * 9 + [False] * 21
    seen = observe(table, observation_id="x", since=began, until=began + 7200)
    assert (seen.treatment.users, seen.treatment.errors, seen.treatment.neutral_share, seen.control.users) == (30, 3, 9, 0)
    # The next stage begins where the log ended: what was served at the stage before is not in it, though a user is in both.
    shown = rollout_searches(files, champion=2, share=0.5, overlap=never).table
    seen = observe(shown, observation_id="y", since=began, until=began + 7200)
    treatment = sum(treated(f"d{i}", 2, 0.5) for i in range(40))
    assert (seen.treatment.users, seen.control.users) == (treatment, 40 - treatment) and seen.treatment.errors == 0
    with pytest.raises(LogError, match="nothing was served at 10% of a rollout of version 2"):
        rollout_searches(files, champion=2, share=0.1, overlap=never)
    # The command's own step takes the table.
    rollout(platform, SHADOW, since=began)
    decided = rollout_step(platform.folder, table, observation="x", until=began + 7200)
    assert decided.kind == "wait" and "treatment has 30 of 2000 users" in decided.reason
    # And the command takes the log.
    (tmp_path / "corewrite.yaml").write_text(
        yaml.safe_dump(
            {
                "run": str(platform.folder),
                **{n: str(tmp_path / n / "x") for n in ("documents", "logs", "labels", "frozen")},
            }
        )
    )
    asked = [
        "cycle",
        "rollout",
        "-c",
        str(tmp_path / "corewrite.yaml"),
        "--until",
        str(began + 7200),
        "--json",
        "--log",
        str(log),
    ]
    told = json.loads(CliRunner().invoke(app, asked).stdout)
    assert (told["kind"], told["reason"]) == ("wait", decided.reason)
    refused = CliRunner().invoke(app, asked[:-2])
    assert refused.exit_code == 1 and "--searches, or --log" in refused.output
    replayed = replay_log(log, platform.registry, bundled(platform.catalogue))
    assert replayed.factors.share_agreeing == 1.0 and replayed.searches == replayed.same_lists == 71


def test_a_search_that_fails_is_written_down_seen_or_unseen(platform, kit, fakes, tmp_path, monkeypatch):
    log = tmp_path / "log"
    rollout(platform, SHADOW)
    platform.promote(platform.second)

    async def check():
        config = platform.config(log={"folder": log, "counterfactual_share": 1})
        async with kit.running(config, says("x"), fakes) as client:

            def breaks(version):
                def recall(texts, k):
                    raise OSError("the index is gone")

                for cascade in version.cascades.values():
                    monkeypatch.setattr(cascade, "recall", recall)

            served = client.service.versions._served
            breaks(served.present)
            await client.search("music", client_id="a")
            await kit.until(lambda: client.service._ubi.written == 1)
            breaks(served.previous)
            response = await client.http.post("/v1/search", json={"query": "music", "client_id": "b"})
            assert response.status_code == 503
            await kit.until(lambda: client.service._ubi.written == 2)

    asyncio.run(check())
    seen, failed = (line["query_attributes"]["served"] for line in lines_of(log))
    assert seen["shadow"]["signal_status"] == {"recall.original": "error"} and seen["signal_status"] != {}
    assert failed["signal_status"] == {"recall.original": "error"} and failed["version"] == 1
    assert rollout_searches(log_files(log), champion=2, share=0.0).table["error"].to_pylist() == [True]
