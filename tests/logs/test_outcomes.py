"""Outcomes of a log small enough to derive by hand."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest

from corewrite.domain import Outcome
from corewrite.logs import SatisfactionThresholds, find_outcomes, read_log
from corewrite.logs.outcomes import BY_DISPLAYED

# Up to 30 s of video 5 s of watching satisfy, above it 40 s.
THRESHOLDS = SatisfactionThresholds(np.array([30.0]), np.array([5.0, 40.0]))
HOUR = 3600.0
# Far enough behind everything else: nothing but it is censored.
END = 10 * HOUR


def outcomes_of(make_log, searches, **options):
    """Outcomes in the order in which the searches were given."""
    found = find_outcomes(make_log(searches), thresholds=THRESHOLDS, **options)
    order = np.argsort([int(q) for q in found.query_id])
    return found, order.tolist()


def test_hand_made_log(make_log, search) -> None:
    searches = [
        # Lea: a failed search and its repair. The third comes after satisfaction: its own chain.
        search("lea", 0, "red lion", ["a", "b", "c"], {"b": (2, 10, 5)}),
        search("lea", 60, "red lion trailer", ["d", "e"], {"d": (9, 10, 8)}),
        search("lea", 120, "red lion trailer 2", ["f"]),
        # Not similar: the one before gave up, though a different query follows.
        search("lea", 180, "cake recipe", ["g"], {"g": (20, 100, 5)}),
        # A new session.
        search("lea", 2 * HOUR, "cake", ["g"], {"g": (60, 100, 5)}),
        # Tom: the same text again is no change, yet the chain goes on.
        search("tom", 10, "boil eggs", ["h"]),
        search("tom", 50, "Boil  EGGS", ["h"]),
        search("tom", 90, "how to boil eggs", ["i", "h"], {"i": (30, 30, 1)}),
        search("zoe", END, "news", []),
    ]
    found, order = outcomes_of(make_log, searches)
    s, c, g = Outcome.SATISFIED, Outcome.CHANGED, Outcome.GAVE_UP
    assert found.outcome[order].tolist() == [c, s, g, g, s, g, c, s, Outcome.CENSORED]
    assert [found.satisfied[i] for i in order] == [(), ("d",), (), (), ("g",), (), (), ("i",), ()]
    assert [set(found.clicked[i]) for i in order] == [
        {"b"},
        {"d"},
        set(),
        {"g"},
        {"g"},
        set(),
        set(),
        {"i"},
        set(),
    ]
    chain = found.chain[order]
    assert [a == b for a, b in pairwise(chain)] == [True, False, False, False, False, True, True, False]
    assert found.plain_changed[order].tolist()[:-1] == [1, 1, 1, 0, 0, 0, 1, 0]
    assert math.isnan(found.plain_changed[order[-1]])
    assert found.watch_seconds[order].tolist() == [2, 9, 0, 20, 60, 0, 0, 30, 0]
    assert found.shares() == {"satisfied": 3 / 8, "changed_unsatisfied": 2 / 8, "gave_up": 3 / 8}
    assert found.rule == "watch"
    session = found.session_id[order]
    assert len(set(session[:4])) == 1 and len(set(session[5:8])) == 1 and len(set(session)) == 4


@pytest.mark.parametrize(
    ("follow_up", "outcome", "together"),
    # The click is 200 s after the search: 290, 300 and 301 s without an action.
    [(490, Outcome.CHANGED, True), (500, Outcome.CHANGED, True), (501, Outcome.GAVE_UP, False)],
)
def test_a_chain_breaks_five_minutes_after_the_last_action(make_log, search, follow_up, outcome, together) -> None:
    searches = [
        search("u", 0, "lion", ["a"], {"a": (1, 10, 200)}),
        search("u", follow_up, "lion king", ["b"]),
        search("z", END, "news"),
    ]
    found, order = outcomes_of(make_log, searches)
    assert found.outcome[order[0]] == outcome
    assert (found.chain[order[0]] == found.chain[order[1]]) == together


def test_the_next_query_of_another_user_is_no_change(make_log, search) -> None:
    searches = [search("u", 0, "lion"), search("v", 10, "lion king"), search("z", END, "news")]
    found, order = outcomes_of(make_log, searches)
    assert found.outcome[order[:2]].tolist() == [Outcome.GAVE_UP] * 2
    assert found.plain_changed[order[:2]].tolist() == [0, 0]
    assert len(set(found.chain)) == 3


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("lion", "loin", True),  # 3 letters of 4 in common: 75 of 100
        ("cat", "car", False),  # 2 of 3: 67
        ("red lion", "the red lion sings", True),  # a subset of words
        ("Lion  KING", "king lion", True),  # case and order do not count
        ("lion", "tiger", False),
    ],
)
def test_similar_texts_have_one_intent(make_log, search, first: str, second: str, same: bool) -> None:
    searches = [search("u", 0, first), search("u", 60, second), search("z", END, "news")]
    found, order = outcomes_of(make_log, searches)
    assert found.outcome[order[0]] == (Outcome.CHANGED if same else Outcome.GAVE_UP)


def test_unlike_texts_with_overlapping_results_have_one_intent(make_log, search) -> None:
    tens = [f"d{i}" for i in range(10)]
    other = [f"e{i}" for i in range(10)]
    searches = [
        search("u", 0, "cat clips", tens),
        search("u", 60, "funny animals", [*tens[:2], *other[2:]]),  # 2 of 10 in common: the same
        search("u", 120, "tax form", other[:1] + tens[3:]),  # 1 of 8 in common: another
        search("z", END, "news"),
    ]
    found, order = outcomes_of(make_log, searches)
    assert found.outcome[order].tolist()[:3] == [Outcome.CHANGED, Outcome.GAVE_UP, Outcome.GAVE_UP]
    asked = []

    def overlap(pairs):
        asked.extend(pairs)
        return np.array([0.19 if p[0] == "cat clips" else 0.2 for p in pairs])

    # A ranking asked for overlaps takes the place of what was displayed.
    found, order = outcomes_of(make_log, searches, overlap=overlap)
    assert found.outcome[order].tolist()[:3] == [Outcome.GAVE_UP, Outcome.CHANGED, Outcome.GAVE_UP]
    assert sorted(asked) == [("cat clips", "funny animals"), ("funny animals", "tax form")]


def test_censoring(make_log, search) -> None:
    end = 2 * HOUR
    searches = [
        search("a", end - 301, "lion"),  # five minutes were seen, thirty were not
        search("b", end - 299, "lion"),
        search("c", end - 250, "lion", ["x"], {"x": (9, 10, 1)}),  # satisfied already: kept, it would bias the rates
        search("d", end - 200, "lion"),  # changed already
        search("d", end - 190, "lion king"),
        search("e", end - 1801, "lion"),
        search("f", end - 1700, "lion", ["x"], {"x": (1, 10, 1600)}),  # still acting 100 s before the end
        search("z", end, "news"),
    ]
    found, order = outcomes_of(make_log, searches)
    g, x = Outcome.GAVE_UP, Outcome.CENSORED
    assert found.outcome[order].tolist() == [g, x, x, x, x, g, x, x]
    plain = found.plain_changed[order]
    assert np.isnan(plain).tolist() == [True, True, True, True, True, False, True, True]
    assert plain[5] == 0


def test_context_ends_before_the_query(make_log, search) -> None:
    texts = ["zero", "one", "two", "three", "four", "five", "six"]
    searches = [search("u", 10 * i, text, titles=[f"seen before {text}"]) for i, text in enumerate(texts)]
    searches += [search("u", 2 * HOUR, "later"), search("v", 5, "other"), search("z", END, "news")]
    found, order = outcomes_of(make_log, searches)
    contexts = [found.context_queries[i] for i in order]
    assert contexts[:7] == [tuple(texts[max(0, i - 5) : i]) for i in range(7)]
    assert contexts[7:] == [(), (), ()]
    assert [found.context_titles[i] for i in order[:2]] == [("seen before zero",), ("seen before one",)]


def test_logged_sessions_are_kept(make_log, search) -> None:
    searches = [
        search("u", 0, "lion", session="s1"),
        search("u", 60, "tax form", session="s2"),
        search("u", 3 * HOUR, "cake", session="s2"),
        search("z", END, "news"),
    ]
    found, order = outcomes_of(make_log, searches)
    assert found.session_id[order[:3]].tolist() == ["s1", "s2", "s2"]
    assert [found.context_queries[i] for i in order[:3]] == [(), (), ("tax form",)]
    assert found.plain_changed[order[:3]].tolist() == [0, 0, 0]


def test_impressions_stand_in_for_hit_ids_each_document_once(tmp_path) -> None:
    query = {"query_id": "q", "client_id": "u", "user_query": "lion", "timestamp": 1000}
    shown = [
        ("b", 2, "impression"),
        ("a", 1, "impression"),
        ("a", 1, "view"),
        ("c", 3, "impression"),
        ("c", 3, "click"),
    ]
    events = [
        {"action_name": action, "query_id": "q", "client_id": "u", "timestamp": 1001}
        | {"event_attributes": {"object": {"object_id": d}, "position": {"ordinal": k}}}
        for d, k, action in shown
    ]
    path = tmp_path / "log"
    path.write_text("\n".join(map(json.dumps, [query, *events])))
    found = find_outcomes(read_log(path))
    assert found.hit_ids == [("a", "b", "c")]
    assert (found.rule, found.satisfied) == ("click", [("c",)])


def test_thresholds_by_duration_bucket() -> None:
    # Half the time of a long video is more than all of a short one, and yet does not satisfy.
    watch, duration = np.array([4.9, 5, 30, 39, 40, np.nan]), np.array([10, 30.0, 20, 31, 500, 10])
    assert THRESHOLDS.satisfied(watch, duration).tolist() == [False, True, True, False, True, False]


def test_fitted_thresholds_are_quantiles_within_deciles_of_duration() -> None:
    rng = np.random.default_rng(3)
    duration = rng.lognormal(3, 1, 2000)
    watch = duration * rng.uniform(0, 1.2, 2000)
    fitted = SatisfactionThresholds.fit(watch, duration, quantile=0.7)
    edges = np.percentile(duration, range(10, 100, 10))
    assert fitted.edges == pytest.approx(edges)
    bucket = np.sum(duration[:, None] > edges, axis=1)
    assert fitted.seconds == pytest.approx([np.percentile(watch[bucket == b], 70) for b in range(10)])
    satisfied = fitted.satisfied(watch, duration)
    for b in range(10):
        assert satisfied[bucket == b].mean() == pytest.approx(0.3, abs=0.01)
    # All of one duration: one bucket decides.
    flat = SatisfactionThresholds.fit(np.array([1.0, 2, 3]), np.full(3, 10.0))
    assert flat.satisfied(np.array([1.9, 2.0]), np.full(2, 10.0)).tolist() == [False, True]


def test_a_table_says_where_the_displayed_lists_told_same_intent(make_log, search) -> None:
    log = make_log([search("u", 0, "lion"), search("z", END, "news")])
    displayed = find_outcomes(log)
    ranked = find_outcomes(log, overlap=lambda pairs: np.zeros(len(pairs)))
    assert displayed.by_displayed and displayed.to_arrow().schema.metadata == BY_DISPLAYED
    assert not ranked.by_displayed and ranked.to_arrow().schema.metadata is None


def test_arrow_table_has_a_row_per_search(make_log, search) -> None:
    found, order = outcomes_of(make_log, [search("u", 0, "lion", ["a"], {"a": (9, 10, 1)}), search("z", END, "news")])
    rows = found.to_arrow().to_pylist()
    assert rows[order[0]] | {"timestamp": 0} == {
        "query_id": "0", "user_id": "u", "session_id": found.session_id[order[0]], "timestamp": 0,
        "query": "lion", "outcome": "satisfied", "plain_changed": 0.0, "watch_seconds": 9.0, "clicks": 1,
        "arm": "", "bucket": None, "impacted": None, "pair": None, "rewritten": None,
    }  # fmt: skip
