"""What a rollout reads of a served log: how a search ended does not depend on the arm it was served in."""

import json

import numpy as np
import pytest

from corewrite.deployment.deployment import embedded_deployment
from corewrite.experiment.rollout.searches import rollout_searches
from corewrite.fusion import default_spec
from corewrite.logs import LogError, find_outcomes, read_log
from corewrite.logs.times import iso
from corewrite.relevance import cold_start
from corewrite.rewriter.baselines import last_query
from corewrite.search import top_overlap
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import DISPLAYED, ShownRanking
from corewrite.simulation.world import make_world
from corewrite.studies.engine import NoRewriter

SHARE, CHAMPION = 0.5, 7


@pytest.fixture(scope="module")
def platform():
    world = make_world(WorldConfig(seed=4, videos=700, entities=25))
    return world, embedded_deployment(world.catalogue, cold_start(world.catalogue, seed=4), default_spec())


class LastQuery:
    """Treatment's answer: last query + q."""

    def __init__(self, cascade):
        self.cascade = cascade

    def rank(self, asked):
        found = self.cascade.search([a.query.text for a in asked], [last_query(a.query) for a in asked], DISPLAYED)
        return ShownRanking(found.rows, np.zeros(len(asked), np.bool_))


def write_served(week, catalogue, path, arm, *, texts="plain", lost=()):
    """The week as a server's log: format 2, with the events about it."""
    with path.open("w") as out:
        for i in range(len(week)):
            hits = [catalogue.ids[r] for r in week.ranking.rows[i] if r >= 0]
            shown = (lambda t: t) if texts == "plain" else (lambda t: f"{hash(t) & 2**63 - 1:032x}")
            served = {
                "format": 2, "texts": texts, "context_queries": [], "ramp": {"arm": arm, "champion": CHAMPION, "share": SHARE},
                "version": 1, "policy": "p", "relevance": "r", "spec": "s", "spec_hash": "h", "signal_status": {},
                "rewrite": "ok", "rewrites": [], "used_at": ["finerank"], "backends": None, "factors": {},
                "scores": [0.0] * len(hits), "pair": None, "lists": None, "shadow": None,
                "log": {"writer": arm, "sequence": i},
            }  # fmt: skip
            line = {
                "application": "corewrite", "query_id": f"{arm}-{week.query_ids[i]}", "client_id": f"{arm}-{week.user_ids[i]}",
                "user_query": shown(week.queries[i].text), "timestamp": iso(float(week.timestamps[i])),
                "query_response_id": "x", "query_response_hit_ids": hits,
                "query_attributes": {
                    "session_id": week.session_ids[i], "context_titles": [], "locale": "", "arm": "all_stages", "bucket": 1,
                    "impacted": None, "served": served,
                },
            }  # fmt: skip
            if i not in lost:
                out.write(json.dumps(line) + "\n")
            for k in np.flatnonzero(week.click[i]):
                row, at = week.ranking.rows[i][k], float(week.click_time[i, k])
                about = {
                    "object": {"object_id": catalogue.ids[row]}, "position": {"ordinal": int(k) + 1},
                    "watch_seconds": float(week.watch_seconds[i, k]), "duration_seconds": float(catalogue.seconds[row]),
                }  # fmt: skip
                event = {"action_name": "watch", "query_id": line["query_id"], "timestamp": iso(at), "event_attributes": about}
                out.write(json.dumps(event) + "\n")


@pytest.fixture(scope="module")
def pair(platform, tmp_path_factory):
    """The same users, once in control and once in treatment, on common random numbers; the two logs."""
    world, deployment = platform
    folder = tmp_path_factory.mktemp("served")
    weeks = {
        "control": simulate_week(world, TrafficConfig(), NoRewriter(deployment.cascade), week=1, sessions=1_500),
        "treatment": simulate_week(world, TrafficConfig(), LastQuery(deployment.cascade), week=1, sessions=1_500),
    }
    for arm, week in weeks.items():
        write_served(week, world.catalogue, folder / f"{arm}.ndjson", arm)
    return folder, weeks


def rate(table, arm, column):
    inside = np.array([a == arm for a in table["arm"].to_pylist()])
    return float(np.mean(np.array(table[column].to_pylist())[inside]))


def test_outcomes_are_the_designs_and_not_those_of_each_arms_own_lists(platform, pair):
    _, deployment = platform
    folder, _ = pair
    files = sorted(folder.glob("*.ndjson"))
    overlap = top_overlap(deployment.cascade)
    frozen = find_outcomes(read_log(folder / "control.ndjson"), overlap=overlap).thresholds
    found = rollout_searches(files, champion=CHAMPION, share=SHARE, overlap=overlap, thresholds=frozen)
    assert found.lost_share == 0.0
    # The design's definition, arm by arm, from the logs themselves.
    wanted, by_lists = {}, {}
    for arm in ("control", "treatment"):
        log = read_log(folder / f"{arm}.ndjson")
        for rates, way in ((wanted, overlap), (by_lists, None)):
            outcomes = find_outcomes(log, overlap=way, thresholds=frozen)
            for name in ("gave_up", "changed_unsatisfied"):
                rates[arm, name] = float(np.mean(outcomes.outcome == name))
    names = {"gave_up": "gave_up", "changed": "changed_unsatisfied"}
    for arm in ("control", "treatment"):
        for column, name in names.items():
            assert rate(found.table, arm, column) == pytest.approx(wanted[arm, name], abs=2e-3)  # the logs end apart
        both = rate(found.table, arm, "gave_up") + rate(found.table, arm, "changed")
        assert rate(found.table, arm, "unsatisfied") == pytest.approx(both)
    # What it read before, by the displayed lists, was off by more than the limits it guards (5 to 30 %).
    ratio = {k: r["treatment", "gave_up"] / r["control", "gave_up"] for k, r in (("right", wanted), ("lists", by_lists))}
    assert abs(ratio["lists"] / ratio["right"] - 1) > 0.02, ratio
    with pytest.raises(ValueError, match="need the overlap"):
        rollout_searches(files, champion=CHAMPION, share=SHARE)


def test_hashed_texts_are_refused_and_lost_lines_counted(platform, pair, tmp_path):
    world, deployment = platform
    _, weeks = pair
    write_served(weeks["control"], world.catalogue, tmp_path / "hashed.ndjson", "control", texts="hashed")
    overlap = top_overlap(deployment.cascade)
    with pytest.raises(LogError, match=r"log\.query_text: true"):
        rollout_searches([tmp_path / "hashed.ndjson"], champion=CHAMPION, share=SHARE, overlap=overlap)
    n = len(weeks["control"])
    lost = set(range(10, n - 10, 20))
    write_served(weeks["control"], world.catalogue, tmp_path / "lossy.ndjson", "control", lost=lost)
    found = rollout_searches([tmp_path / "lossy.ndjson"], champion=CHAMPION, share=SHARE, overlap=overlap)
    assert found.lost_share == pytest.approx(len(lost) / n)
