"""From what was served to the reading of a launch: nothing is handed over but the log and what users did."""

import asyncio
import json
import time

import numpy as np
import pytest

from corewrite.domain import hash_share
from corewrite.domain.traffic_split import ArmShares, assign_arm
from corewrite.experiment import read_launch
from corewrite.logs import SatisfactionThresholds, find_outcomes, read_log, require_texts
from corewrite.logs.files import log_files
from corewrite.serving.log_line import Hasher

ARMS = {"holdback": 0.05, "none": 0.5, "all_stages": 0.5}
CLIENTS = [f"user {i}" for i in range(150)]
THRESHOLDS = SatisfactionThresholds(np.zeros(0), np.array([10.0]))
"""Ten seconds of anything satisfy."""


def ending(client, step):
    """What a user does after a search: watches, asks again (once at most, and likelier without rewrites), or leaves."""
    place = hash_share(f"{client} {step}", "what users do")
    if place < 0.4:
        return "satisfied"
    asks = step == 0 and place < (0.85 if assign_arm(client, ArmShares(**ARMS)) == "none" else 0.7)
    return "changed_unsatisfied" if asks else "gave_up"


@pytest.fixture(scope="module")
def served(made, kit, tmp_path_factory):
    """The folder of a log with events, and what happened: (client, query, ending) of every search in the order of time."""
    folder = tmp_path_factory.mktemp("log")
    queries, happened, events = made.queries(10), [], []
    config = made.config(log={"folder": folder, "query_text": True, "counterfactual_share": 1}, arms=ARMS)

    async def go():
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            for i, name in enumerate(CLIENTS):
                for step, query in enumerate((queries[i % 10], f"{queries[i % 10]} please")):
                    found = await client.search(query, client_id=name)
                    happened.append((name, query, ending(name, step)))
                    watched = 30.0 if ending(name, step) == "satisfied" else 1.0
                    thing = {"object_id": found["results"][0]["id"]}
                    events.append(
                        {
                            "action_name": "watch",
                            "query_id": found["query_id"],
                            "client_id": Hasher(None)(name),
                            "timestamp": time.time(),
                            "event_attributes": {"object": thing, "watch_seconds": watched, "duration_seconds": 60.0},
                        }
                    )
                    if ending(name, step) != "changed_unsatisfied":
                        break

    asyncio.run(go())
    # An hour later somebody still searches: nothing above is cut off by the log's end.
    events.append({"query_id": "last", "client_id": "z", "user_query": "z", "timestamp": time.time() + 3600})
    (folder / "events.ndjson").write_text("\n".join(map(json.dumps, events)))
    return folder, happened


def truth_of(made, kit, queries):
    """Whether the lists of the two arms differ, by query, asked of servers that have one arm only."""

    async def go():
        async with (
            kit.running(made.config(enabled=False), kit.as_title(made.catalogue)) as bare,
            kit.running(made.config(), kit.as_title(made.catalogue)) as full,
        ):
            lists = {q: [(await one.search(q))["results"] for one in (bare, full)] for q in queries}
            return {q: [r["id"] for r in a] != [r["id"] for r in b] for q, (a, b) in lists.items()}

    return asyncio.run(go())


def test_a_launch_is_read_from_the_served_log_as_it_happened(made, kit, served):
    folder, happened = served
    outcomes = find_outcomes(require_texts(read_log(log_files(folder))), thresholds=THRESHOLDS)
    found = read_launch("launch", outcomes.to_arrow(), control="none", treatment="all_stages", give_up_margin=1.0)

    differs = truth_of(made, kit, {query for _, query, _ in happened})
    assert set(differs.values()) == {True, False}
    first, searches = {}, 0
    for client, query, end in happened:
        arm = assign_arm(client, ArmShares(**ARMS))
        searches += arm != "holdback"
        if arm != "holdback" and differs[query]:
            first.setdefault(client, (arm, end))
    assert (found.searches, found.impacted_users) == (searches, len(first))
    assert found.users == len({c for c, _, _ in happened if assign_arm(c, ArmShares(**ARMS)) != "holdback"})
    for name, end in (("cqr", "changed_unsatisfied"), ("give_up", "gave_up"), ("satisfied", "satisfied")):
        effect = getattr(found, name)
        for arm, share, n in (
            ("none", effect.control, effect.n_control),
            ("all_stages", effect.treatment, effect.n_treatment),
        ):
            ends = [e for a, e in first.values() if a == arm]
            assert (n, round(share * n)) == (len(ends), ends.count(end)) and share * n == pytest.approx(ends.count(end))


def test_the_outcomes_of_the_served_log_are_those_that_happened(served):
    folder, happened = served
    outcomes = find_outcomes(read_log(log_files(folder)), thresholds=THRESHOLDS)
    rows = zip(outcomes.user_id, outcomes.query, map(str, outcomes.outcome), strict=True)
    assert sorted(r for r in rows if r[0] != "z") == sorted((Hasher(None)(c), q, end) for c, q, end in happened)
