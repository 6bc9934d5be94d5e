"""Whether the lists of the arms under comparison differ: logged of every search, and the same whichever arm was served."""

import asyncio
from collections import defaultdict

import numpy as np
import pytest
from pydantic import ValidationError

from corewrite.domain.traffic_split import ArmShares, assign_arm, compared_arms, is_compared
from corewrite.experiment import RolloutConfig, RolloutState
from corewrite.experiment.rollout.file import save_rollout
from corewrite.logs.files import log_files
from corewrite.logs.served import count_lost, read_served
from corewrite.serving.process import WorkerError
from corewrite.serving.settings import LogSettings

LAUNCH = {"none": 0.5, "all_stages": 0.5}
CLIENTS = [f"client-{i}" for i in range(12)]
LATE = {"recall": 1, "rawrank": 1, "finerank": 1}
LATE_FOR_RECALL = {"recall": 1, "rawrank": 1, "finerank": 5_000}


def lines_of(folder):
    return [read_served(line) for path in log_files(folder) for line in path.read_bytes().splitlines()]


def serve(made, kit, log, behave, *, queries, clients=CLIENTS, before=None, share=1.0, pair=None, wait=False, **changes):
    """The lines of searches of every query by every client."""
    settings = {"folder": log, "query_text": True, "counterfactual_share": share, "pair": pair}
    config = made.config(log=settings, **changes)

    async def go():
        async with kit.running(config, behave) as client:
            if before is not None:
                before(client.service)
            for done, (query, name) in enumerate(((q, c) for q in queries for c in clients), 1):
                await client.search(query, client_id=name)
                if wait:  # until what comes after the answer is done too
                    await kit.until(lambda done=done: client.service._ubi.written == done)

    asyncio.run(go())
    return lines_of(log)


def truth(made, kit, queries, **arms):
    """What servers that have one arm only answer, by query."""

    async def go():
        found = {}
        async with kit.running(made.config(arms=arms), kit.as_title(made.catalogue)) as client:
            for query in queries:
                found[query] = tuple(r["id"] for r in (await client.search(query))["results"])
        return found

    return asyncio.run(go())


def slowly(behave):
    async def late(queries, n):
        await asyncio.sleep(0.05)
        return await behave(queries, n)

    return late


def by_query(lines):
    """What was logged of each query: (impacted, lists) by arm."""
    found = defaultdict(lambda: defaultdict(set))
    for line in lines:
        a = line.query_attributes
        found[line.user_query][a.arm].add((a.impacted, a.served.lists, a.served.pair))
    return found


@pytest.mark.parametrize("deadlines", [None, LATE, LATE_FOR_RECALL])
@pytest.mark.parametrize("cached", [True, False])
def test_late_or_not_both_arms_log_the_lists_of_the_full_rewrite(made, kit, tmp_path, deadlines, cached):
    queries = made.queries(6)
    changes = {} if deadlines is None else {"deadlines": deadlines}
    changes |= {} if cached else {"cache": {"size": 0}}
    behave = slowly(kit.as_title(made.catalogue))
    lines = serve(made, kit, tmp_path / "log", behave, queries=queries, arms=LAUNCH, **changes)
    control, treatment = truth(made, kit, queries, none=1, all_stages=0), truth(made, kit, queries)
    differ = {q: control[q] != treatment[q] for q in queries}
    assert True in differ.values()
    found = by_query(lines)
    for query in queries:
        logged = (differ[query], (control[query], treatment[query]), ("none", "all_stages"))
        assert found[query] == {"none": {logged}, "all_stages": {logged}}
    for line in lines:
        shown, served = line.query_response_hit_ids, line.served
        if line.query_attributes.arm == "none":  # computes the rewrite and uses nothing of it
            assert (shown, served.rewrite, served.rewrites) == (control[line.user_query], "off", ())
        elif not served.used_at:
            assert (shown, served.rewrite) == (control[line.user_query], "late")
        elif len(served.used_at) == 3:
            assert shown == treatment[line.user_query]
    if deadlines is LATE:
        assert any(x.served.rewrite == "late" for x in lines)
    elif deadlines is LATE_FOR_RECALL:
        assert any(0 < len(x.served.used_at) < 3 for x in lines)


async def fails(queries, n):
    raise WorkerError("down")


async def rubbish(queries, n):
    return ["no list"] * len(queries)


async def silent(queries, n):
    return [[]] * len(queries)


@pytest.mark.parametrize("behave", [fails, rubbish, silent])
def test_without_a_rewrite_the_arms_show_the_same_and_both_log_so(made, kit, tmp_path, behave):
    queries = made.queries(4)
    found = by_query(serve(made, kit, tmp_path / "log", behave, queries=queries, arms=LAUNCH))
    control = truth(made, kit, queries, none=1, all_stages=0)
    for query in queries:
        same = (False, (control[query],) * 2, ("none", "all_stages"))
        assert found[query] == {"none": {same}, "all_stages": {same}}


def test_under_the_kill_switch_nothing_is_asked_and_nothing_differs(made, kit, tmp_path):
    asked = []

    async def listens(queries, n):
        asked.extend(queries)
        return [["something else"]] * len(queries)

    lines = serve(made, kit, tmp_path / "log", listens, queries=made.queries(2), arms=LAUNCH, enabled=False)
    assert {x.query_attributes.impacted for x in lines} == {False} and not asked


def broken(service, times, query):
    """Let the scoring of every text but the query fail, the first `times` times."""
    scorer = service.versions.present.cascades["all_stages"].signals["relevance"]
    own, left = scorer.score, [times]

    def score(texts, rows):
        if list(texts) != [query] and left[0] > 0:
            left[0] -= 1
            return np.full(rows.shape, np.nan)
        return own(texts, rows)

    scorer.score = score


@pytest.mark.parametrize(("times", "known"), [(1, True), (1_000, False)])
@pytest.mark.parametrize("arm", ["none", "all_stages"])
def test_what_cannot_be_scored_is_not_known_whichever_arm_is_served(platform, kit, tmp_path, times, known, arm):
    query = platform.queries(3)[1]
    arms = {"none": 0, "all_stages": 0, arm: 1}
    (line,) = serve(
        platform, kit, tmp_path / "log", kit.as_title(platform.catalogue), queries=[query], clients=["c"], arms=arms,
        pair=["none", "all_stages"], before=lambda service: broken(service, times, query),
    )  # fmt: skip
    assert line.served.pair == ("none", "all_stages")
    assert (line.query_attributes.impacted is None, line.served.lists is None) == (not known, not known)


def test_all_searches_of_a_client_are_compared_or_none(made, kit, tmp_path):
    clients = [f"client-{i}" for i in range(40)]
    arms = {"none": 0.4, "finerank_only": 0.3, "all_stages": 0.3}
    lines = serve(
        made, kit, tmp_path / "log", kit.as_title(made.catalogue), queries=made.queries(3), clients=clients, share=0.5,
        arms=arms, wait=True,
    )  # fmt: skip
    # Written in the order of the searches, since each was waited for.
    for line, client in zip(lines, clients * 3, strict=True):
        arm = assign_arm(client, ArmShares(holdback=0, **arms))
        assert line.query_attributes.arm == arm
        wanted = arm != "finerank_only" and is_compared(client, 0.5)
        assert (line.query_attributes.impacted is not None) == wanted
        assert line.served.pair == (("none", "all_stages") if wanted else None)
    assert 10 < sum(is_compared(c, 0.5) for c in clients) < 30


def test_by_default_the_holdback_is_compared_with_the_rest(made, kit, tmp_path):
    clients = [f"client-{i}" for i in range(100)]
    queries = made.queries(2)
    arms = {"holdback": 0.05}
    lines = serve(made, kit, tmp_path / "log", kit.as_title(made.catalogue), queries=queries, clients=clients, arms=arms)
    control, treatment = truth(made, kit, queries, none=1, all_stages=0), truth(made, kit, queries)
    found = by_query(lines)
    for q in queries:
        logged = (control[q] != treatment[q], (control[q], treatment[q]), ("holdback", "all_stages"))
        assert found[q] == {"holdback": {logged}, "all_stages": {logged}}


def says(text):
    async def behave(queries, n):
        return [[text]] * len(queries)

    return behave


@pytest.mark.parametrize("stage", [0, 3])  # shadow; half of the clients
def test_in_a_rollout_its_versions_are_compared_under_the_clients_arm(platform, kit, tmp_path, stage):
    queries = platform.queries(3)
    texts = " ".join(platform.catalogue.titles[40].split()[:3]), " ".join(platform.catalogue.titles[90].split()[:3])
    behaviours = dict(zip((platform.first.policy, platform.second.policy), map(says, texts), strict=True))

    async def alone(policy):
        async with kit.running(platform.config(), behaviours[policy]) as client:
            return {q: tuple(r["id"] for r in (await client.search(q))["results"]) for q in queries}

    lists = {v: asyncio.run(alone(p)) for v, p in ((1, platform.first.policy), (2, platform.second.policy))}
    platform.promote(platform.second)
    save_rollout(platform.folder / "ramp.json", RolloutState(2, 1, since=0.0, stage=stage), RolloutConfig())
    config = platform.config(
        log={"folder": tmp_path / "log", "query_text": True, "counterfactual_share": 1}, arms={"holdback": 0.05}
    )

    async def go():
        fakes = kit.Fakes(says("unused"), behaviours)
        async with kit.running(config, says("unused"), fakes) as client:
            for q in queries:
                for i in range(82):
                    await client.search(q, client_id=f"client-{i}")

    asyncio.run(go())
    arms, differ, holdback = set(), set(), 0
    for line in lines_of(tmp_path / "log"):
        a, q = line.query_attributes, line.user_query
        if a.arm == "holdback":
            assert (a.impacted, a.served.pair, a.served.ramp.arm) == (None, None, None)
            holdback += 1
            continue
        assert (a.served.pair, a.served.lists) == ((1, 2), (lists[1][q], lists[2][q]))
        assert a.impacted == (lists[1][q] != lists[2][q])
        arms.add(a.served.ramp.arm)
        differ.add(a.impacted)
        assert line.query_response_hit_ids == lists[2 if a.served.ramp.arm == "treatment" else 1][q]
    assert holdback and arms == ({"control"} if stage == 0 else {"control", "treatment"}) and True in differ


def test_a_pair_that_the_settings_name_stays_in_a_rollout(platform, kit, tmp_path):
    platform.promote(platform.second)
    save_rollout(platform.folder / "ramp.json", RolloutState(2, 1, since=0.0, stage=3), RolloutConfig())
    lines = serve(
        platform, kit, tmp_path / "log", kit.as_title(platform.catalogue), queries=platform.queries(2), arms=LAUNCH,
        pair=["none", "all_stages"],
    )  # fmt: skip
    assert {x.served.pair for x in lines} == {("none", "all_stages")} and {x.served.version for x in lines} == {1, 2}
    assert {x.query_attributes.impacted for x in lines} <= {True, False}


@pytest.mark.parametrize(
    ("shares", "pair"),
    [
        ({}, ("holdback", "all_stages")),
        ({"holdback": 0}, ("none", "all_stages")),
        ({"none": 0.5, "all_stages": 0.5}, ("none", "all_stages")),
        ({"holdback": 0.2, "none": 0.1, "all_stages": 0.9}, ("holdback", "all_stages")),
        ({"finerank_only": 0.5, "all_stages": 0.5}, ("finerank_only", "all_stages")),
        ({"holdback": 0, "finerank_only": 1, "all_stages": 0}, ("none", "finerank_only")),
        ({"none": 1, "all_stages": 0}, ("none", "all_stages")),
        ({"holdback": 0, "none": 1, "all_stages": 0}, ("none", "all_stages")),
    ],
)
def test_the_arms_that_are_compared(shares, pair):
    assert compared_arms(ArmShares(**shares)) == pair


@pytest.mark.parametrize("pair", [["all_stages", "none"], ["none", "none"], ["none", "holdback"], ["none"], ["none", "b"]])
def test_pairs_that_compare_nothing_are_refused(pair):
    with pytest.raises(ValidationError):
        LogSettings(pair=pair)


def test_lost_lines_are_told_by_those_that_are_there(made, kit, tmp_path, monkeypatch):
    monkeypatch.setattr("corewrite.serving.recording._WAITING", 2)  # what may wait for the log
    lines = []

    async def go():
        config = made.config(log={"folder": tmp_path / "log"})
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            ubi, recorder, may_write = client.service._ubi, client.service._recorder, asyncio.Event()
            write = recorder._write

            async def waiting(*arguments):
                await may_write.wait()
                await write(*arguments)

            monkeypatch.setattr(recorder, "_write", waiting)
            for _ in range(3):
                may_write.clear()
                await asyncio.gather(*(client.search("lion", client_id=f"c{i}") for i in range(8)))
                may_write.set()
                await kit.until(lambda: not recorder._tasks)
            await client.search("lion", client_id="last")
            await kit.until(lambda: ubi.written + ubi.dropped == 25)
            return ubi.written, ubi.dropped

    written, dropped = asyncio.run(go())
    lines = lines_of(tmp_path / "log")
    assert dropped == 3 * 6 and len(lines) == written
    first = min(line.served.log.sequence for line in lines)
    assert count_lost(line.served.log for line in lines) == dropped - first
