"""Who was served what can be read back from the log, though it holds no client's id."""

import asyncio

import pytest

from corewrite.cycle.users import build_users
from corewrite.domain.traffic_split import assign_bucket, is_gate_user, is_holdback_user
from corewrite.experiment import RolloutConfig, RolloutState
from corewrite.experiment.rollout.file import save_rollout
from corewrite.logs import find_outcomes, read_log
from corewrite.serving.log_line import Hasher

CLIENTS = [f"client-{i}" for i in range(300)]
HELD_BACK = {c for c in CLIENTS if is_holdback_user(c)}


def serve(platform, kit, log, **changes):
    """The answers to one search and one rewrite request of each client, by client."""
    # As `corewrite serve` has them: no arms in the settings, no texts in the log.
    config = platform.config(log={"folder": log}, arms={"holdback": 0.05}, **changes)

    async def go():
        found = {}
        async with kit.running(config, kit.as_title(platform.catalogue)) as client:
            for c in CLIENTS:
                body = {"query": platform.queries(1)[0], "client_id": c}
                rewritten = (await client.http.post("/v1/rewrite", json=body)).json()
                found[c] = await client.search(**body), rewritten
            metrics = (await client.http.get("/metrics")).text
        return found, metrics

    return asyncio.run(go())


def test_the_holdback_and_the_gates_users_are_known_from_the_log(made, kit, tmp_path):
    found, metrics = serve(made, kit, tmp_path / "log")
    assert 5 < len(HELD_BACK) < 30
    assert {c for c, (search, _) in found.items() if search["arm"] == "holdback"} == HELD_BACK
    outcomes = find_outcomes(read_log(sorted((tmp_path / "log").iterdir())))
    by_user = {Hasher(None)(c): c for c in CLIENTS}
    assert {by_user[u] for u, arm in zip(outcomes.user_id, outcomes.arm, strict=True) if arm == "holdback"} == HELD_BACK
    buckets = {by_user[u]: b for u, b in zip(outcomes.user_id, outcomes.bucket, strict=True)}
    assert buckets == {c: assign_bucket(c) for c in CLIENTS}
    # And so it is read by the cycle.
    users = build_users(outcomes)
    assert {by_user[u] for u in users.held_back} == HELD_BACK and users.warnings == ()
    assert {by_user[u] for u in users.gate} == {c for c in CLIENTS if is_gate_user(c)} > HELD_BACK
    # What the log's own ids would have said: another twentieth of the users.
    assert {c for u, c in by_user.items() if is_holdback_user(u)} != HELD_BACK
    assert {c for u, c in by_user.items() if is_gate_user(u)} != {c for c in CLIENTS if is_gate_user(c)}
    assert f'corewrite_searches_total{{arm="holdback"}} {len(HELD_BACK)}.0' in metrics


def test_no_rewrite_reaches_the_holdback_by_any_road(made, kit, tmp_path):
    found, _ = serve(made, kit, tmp_path / "log")
    for client, (search, rewritten) in found.items():
        held = client in HELD_BACK
        assert (search["rewrites"] == [], search["rewrite_status"] == "off") == (held, held)
        assert (rewritten["arm"], rewritten["bucket"]) == (search["arm"], assign_bucket(client))
        (result,) = rewritten["results"]
        assert (result["rewrites"] == [], result["reason"] == "arm") == (held, held)


@pytest.mark.parametrize("stage", [0, 3])  # nobody sees the new version; half do
def test_the_holdback_takes_no_part_in_a_rollout(platform, kit, tmp_path, stage):
    platform.promote(platform.second)
    save_rollout(platform.folder / "ramp.json", RolloutState(2, 1, since=0.0, stage=stage), RolloutConfig())
    found, _ = serve(platform, kit, tmp_path / "log")
    for client, (search, _) in found.items():
        if client in HELD_BACK:
            assert (search["arm"], search["ramp"], search["version"], search["rewrites"]) == ("holdback", None, 1, [])
        else:
            assert (search["arm"], search["version"]) == ("launch_2", 2 if search["ramp"] == "treatment" else 1)
            assert search["ramp"] == "control" or (stage == 3 and search["ramp"] == "treatment")


def test_a_client_without_an_id_may_be_held_back_too(made, kit, tmp_path):
    """Each of its searches is a client of its own: the share is of them."""
    config = made.config(log={"folder": tmp_path}, arms={"holdback": 0.2})

    async def go():
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            return [(await client.search("lion"))["arm"] for _ in range(200)]

    assert 15 < asyncio.run(go()).count("holdback") < 70  # 40 expected, standard deviation 5.7
