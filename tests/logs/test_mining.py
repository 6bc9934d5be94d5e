"""From outcomes to instances, reformulations and impressions."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from corewrite.domain import Catalogue, Context, Query, TrainingInstance
from corewrite.logs import (
    Propensity,
    SatisfactionThresholds,
    build_query,
    find_outcomes,
    fit_propensity,
    labelled_impressions,
    mine_instances,
    mine_reformulations,
    read_instances,
    write_instances,
)

THRESHOLDS = SatisfactionThresholds(np.array([]), np.array([5.0]))
CURVE = Propensity(np.array([1.0, 0.5, 0.25, 0.05]))
IDS = [f"{letter}{i}" for letter in "abcdefgh" for i in range(10)]
CATALOGUE = Catalogue.of_ids(IDS)
END = 36_000.0


@pytest.fixture
def repaired(make_log, search):
    """One chain of Lea's: a search that fails, one that satisfies; Tom gives up; Zoe ends the log."""
    searches = [
        search("lea", 0, "Red lion", ["a0", "a1", "a2", "a3", "a4"], {"a1": (1, 10, 5)}, titles=["The zoo"]),
        search(
            "lea",
            60,
            "red lion trailer",
            ["b0", "a2", "b1", "b2", "b3"],
            {"b1": (9, 10, 5), "b0": (7, 10, 20)},
        ),
        search("tom", 0, "cake", ["c0", "c1", "c2", "c3"]),
        search("zoe", END, "news"),
    ]
    return find_outcomes(make_log(searches), thresholds=THRESHOLDS)


def by_id(instances: list[TrainingInstance]) -> dict[str, TrainingInstance]:
    return {x.instance_id: x for x in instances}


def examined_negatives(instance: TrainingInstance) -> dict[str, float]:
    """D- without the random negative, which comes last."""
    return dict(zip(instance.negatives[:-1], instance.weights[:-1], strict=True))


def test_instances_of_a_chain(repaired) -> None:
    instances = by_id(mine_instances(repaired, CURVE, CATALOGUE, seed=1))
    # Tom's chain has no D+, and Zoe's search is censored.
    assert list(instances) == ["0", "1"]
    first, second = instances["0"], instances["1"]
    assert first.query == Query("Red lion", Context((), ("The zoo",), ""))
    assert second.query == Query("red lion trailer", Context(("Red lion",), (), ""))
    # D+ of the failed search is what its repair found; the longest watched counts double.
    for instance in (first, second):
        assert dict(zip(instance.positives, instance.gains, strict=True)) == {"b1": 2.0, "b0": 1.0}
        assert instance.user_id == "lea"
    # The first search was examined down to place 3 (clicked: 2), the repair down to place 4 (clicked: 1 and 3).
    # Weights are inverse propensities of the place, at most 10; a2 was shown at places 3 and 2: the rarer counts.
    weights = {"a0": 1.0, "a1": 2.0, "a2": 4.0, "b2": 10.0}
    assert examined_negatives(first) == weights == examined_negatives(second)
    # The search's own come first, then those of the rest of the chain.
    assert first.negatives[:-1] == ("a0", "a1", "a2", "b2")
    assert second.negatives[:-1] == ("a2", "b2", "a0", "a1")


def test_a_random_negative_brings_at_most_a_tenth_of_the_weight(repaired) -> None:
    runs = [mine_instances(repaired, CURVE, CATALOGUE, seed=seed) for seed in range(40)]
    drawn = set()
    for instance in (x for run in runs for x in run):
        sampled = dict(zip(instance.negatives[4:], instance.weights[4:], strict=True))
        assert len(sampled) <= 1 and not set(sampled) & {"b0", "b1"}
        assert sum(sampled.values()) <= 0.1 * sum(instance.weights) * (1 + 1e-12)
        drawn |= set(sampled)
    assert len(drawn) > 30
    # Drawn once per instance: alike in every run, and different between instances.
    assert runs[0] == mine_instances(repaired, CURVE, CATALOGUE, seed=0)
    assert any(run[0].negatives[-1] != run[1].negatives[-1] for run in runs)


def test_negatives_are_capped_and_lie_in_the_catalogue(repaired) -> None:
    (first, _) = mine_instances(repaired, CURVE, Catalogue.of_ids(["a0", "a2", "b0", "b1", "h0"]), seed=3, max_negatives=1)
    assert first.negatives[0] == "a0"
    assert set(first.negatives[1:]) <= {"h0"}
    assert mine_instances(repaired, CURVE, Catalogue.of_ids(["h0", "a0"]), seed=3) == []  # no D+ there
    assert mine_instances(repaired, CURVE, Catalogue.of_ids(["b0", "b1", "h0"]), seed=3) == []  # no D- there


def test_censored_searches_teach_nothing(make_log, search) -> None:
    def mined(end):
        searches = [
            search("u", 0, "lion", ["a0"]),
            search("u", 100, "lion king", ["b0"]),
            search("u", 200, "lion king film", ["c0", "d0"], {"c0": (9, 10, 5)}),
            search("z", end, "news"),
        ]
        outcomes = find_outcomes(make_log(searches), thresholds=THRESHOLDS)
        return by_id(mine_instances(outcomes, CURVE, CATALOGUE, seed=1))

    assert list(mined(2000)) == ["0", "1", "2"]
    # The satisfied search lies in the last five minutes: it is not known to be one, so nothing repaired the others.
    assert mined(340) == {}


def test_users_are_filtered_out(repaired) -> None:
    keep_tom = {"user_filter": lambda user: user != "lea"}
    assert mine_instances(repaired, CURVE, CATALOGUE, seed=1, **keep_tom) == []
    assert mine_reformulations(repaired, **keep_tom) == ([], [])
    assert set(labelled_impressions(repaired, CURVE, CATALOGUE, **keep_tom).user_id) == {"tom"}


def test_instances_come_in_the_order_of_time(make_log, search) -> None:
    searches = [search(f"u{i}", 1000 - 10 * i, f"text {i}", ["a0", "a1"], {"a1": (9, 10, 1)}) for i in range(5)]
    found = find_outcomes(make_log([*searches, search("z", END, "news")]), thresholds=THRESHOLDS)
    times = [x.timestamp for x in mine_instances(found, CURVE, CATALOGUE, seed=1)]
    assert len(times) == 5
    assert all(a < b for a, b in pairwise(times))


def test_reformulations(repaired) -> None:
    failed, good = mine_reformulations(repaired)
    assert [(r.query.text, r.target, r.user_id) for r in failed] == [("Red lion", "red lion trailer", "lea")]
    assert [(r.query.text, r.target) for r in good] == [("red lion trailer", "red lion trailer")]
    assert failed[0].query.context.titles == ("The zoo",)
    assert failed[0].query == build_query(repaired, repaired.query_id.tolist().index("0"))


def test_labelled_impressions(repaired) -> None:
    table = labelled_impressions(repaired, CURVE, Catalogue.of_ids([d for d in IDS if d != "a0"]))
    rows = zip(table.query, table.document_id, table.position, table.clicked, table.satisfied, strict=True)
    assert sorted(rows) == sorted(
        [
            ("Red lion", "a1", 2, True, False),
            ("Red lion", "a2", 3, False, False),
            ("red lion trailer", "b0", 1, True, True),
            ("red lion trailer", "a2", 2, False, False),
            ("red lion trailer", "b1", 3, True, True),
            ("red lion trailer", "b2", 4, False, False),
            # Nothing clicked: three count as examined.
            ("cake", "c0", 1, False, False),
            ("cake", "c1", 2, False, False),
            ("cake", "c2", 3, False, False),
        ]
    )
    assert table.propensity.tolist() == CURVE.at(table.position).tolist()
    with pytest.raises(ValueError, match="are these the documents of this log"):
        labelled_impressions(repaired, CURVE, Catalogue.of_ids(["x"]))


def test_propensity_beyond_the_last_place_is_the_last() -> None:
    assert CURVE.at(np.array([1, 2, 4, 5, 99])).tolist() == [1.0, 0.5, 0.05, 0.05, 0.05]


def clicks(seed: int, examination: np.ndarray, searches: int = 6000, queries: int = 40) -> SimpleNamespace:
    """Clicks of a position-based model: examined and attractive, results shuffled round their attractiveness."""
    rng = np.random.default_rng(seed)
    n = len(examination)
    attractive = rng.beta(1, 3, (queries, n))
    out = SimpleNamespace(query=[], hit_ids=[], clicked=[])
    for _ in range(searches):
        q = int(rng.integers(queries))
        order = np.argsort(-attractive[q] + 0.3 * rng.normal(size=n))
        hit = (rng.random(n) < examination) & (rng.random(n) < attractive[q][order])
        out.query.append(f"q{q}")
        out.hit_ids.append(tuple(f"q{q}d{d}" for d in order))
        out.clicked.append({f"q{q}d{d}": 1.0 for d in order[hit]})
    return out


@pytest.mark.parametrize("seed", [0, 1])
def test_propensity_recovers_the_curve_that_made_the_clicks(seed: int) -> None:
    truth = 1 / np.arange(1, 11) ** 0.7
    log = clicks(seed, truth)
    fitted = fit_propensity(log).by_position
    assert fitted == pytest.approx(truth, abs=0.07)
    assert fitted[0] == 1 and (np.diff(fitted) <= 0).all()
    # The click rate itself is no estimate: the ranking puts what attracts at the top.
    counts = Counter(k for hits, hit in zip(log.hit_ids, log.clicked, strict=True) for k, d in enumerate(hits) if d in hit)
    naive = np.array([counts[k] for k in range(10)]) / counts[0]
    assert np.abs(naive - truth).max() > 0.1


def test_propensity_needs_clicks() -> None:
    log = clicks(0, np.array([1.0, 0.5]), searches=50)
    with pytest.raises(ValueError, match=r"need 200 clicks on displayed results, the log has \d+"):
        fit_propensity(log)
    assert fit_propensity(log, minimum_clicks=1).by_position[0] == 1


def test_instances_survive_parquet(tmp_path: Path, repaired) -> None:
    instances = mine_instances(repaired, CURVE, CATALOGUE, seed=1)
    odd = TrainingInstance("é", "u", Query("", Context(("", "a\nb"), (), "de-AT")), ("d",), (0.1,), ("e",), (1e-9,), 1.25)
    path = tmp_path / "new" / "instances.parquet"
    write_instances([*instances, odd], path)
    assert read_instances(path) == [*instances, odd]
    write_instances([], path)
    assert read_instances(path) == []
