"""Which words a rewrite should not drop: the rule by hand, and on a simulated week against the words of its entities."""

import numpy as np
import pytest

from corewrite.cycle.window import read_window
from corewrite.deployment.deployment import embedded_deployment
from corewrite.domain import Catalogue, Query, TrainingInstance, words
from corewrite.domain.traffic_split import is_gate_user
from corewrite.evaluation.protected_words import find_protected_words
from corewrite.fusion import default_spec
from corewrite.gate import Evaluation, GateConfig, PolicyOutputs
from corewrite.gate.checks import CHECKS
from corewrite.gate.resampling import Resampling
from corewrite.relevance import cold_start
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.export import write_log
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.vocabulary import ASPECTS, FILLERS, PADDING
from corewrite.simulation.world import make_world
from corewrite.studies.engine import NoRewriter


def documents(*titles: str) -> Catalogue:
    n = len(titles)
    ids = tuple(f"d{i}" for i in range(n))
    return Catalogue(ids, titles, ("",) * n, np.zeros((n, 1), np.float32), np.ones(n), np.ones(n))


def searches(*rows: tuple[str, str, tuple[int, ...]]) -> list[TrainingInstance]:
    """(user, query, satisfying documents) each."""
    return [
        TrainingInstance(f"i{k}", user, Query(text), tuple(f"d{i}" for i in good), (1.0,) * len(good), ("d0",), (1.0,))
        for k, (user, text, good) in enumerate(rows)
    ]


OTHERS = tuple(f"nothing of it {i}" for i in range(60))
TITLES = ("filler", "Ruta live", "the best of RUTA", "a concert", *OTHERS)


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([("a", "ruta", (1,)), ("b", "Ruta", (2,)), ("c", "ruta now", (1, 2))], {"ruta"}),
        # Two users, however often they ask; and one document, which may be the one with a slip in its title.
        ([("a", "ruta", (1,)), ("b", "ruta", (2,)), ("b", "ruta", (1, 2)), ("a", "ruta", (2,))], set()),
        ([("a", "ruta", (1,)), ("b", "ruta", (1,)), ("c", "ruta", (1,))], set()),
        # Two thirds of what satisfies, each search counting once.
        ([("a", "ruta", (1,)), ("b", "ruta", (2,)), ("c", "ruta", (3,))], {"ruta"}),
        ([("a", "ruta", (1,)), ("b", "ruta", (2, 3)), ("c", "ruta", (3, 4, 1))], set()),
        # Of documents that are gone nothing is known, and a search that only they satisfied does not count.
        ([("a", "ruta", (1, 99)), ("b", "ruta", (2, 98)), ("c", "ruta", (97,))], set()),
        ([("a", "ruta", (1, 99)), ("b", "ruta", (2, 98)), ("c", "ruta", (97, 2))], {"ruta"}),
        # No title says a slip, nor a word of the user's own.
        ([("a", "rutta gig", (1,)), ("b", "rutta gig", (2,)), ("c", "rutta gig", (1, 2))], set()),
    ],
)
def test_the_rule(rows, kept):
    assert find_protected_words(searches(*rows), documents(*TITLES), seed=0) == kept


@pytest.mark.parametrize(("saying", "kept"), [(5, {"ruta"}), (6, set())])
def test_what_more_than_one_title_in_twenty_says_names_nothing(saying, kept):
    titles = ["filler", *["Ruta"] * saying, *["nothing of it"] * (99 - saying)]
    rows = [("a", "ruta", (1,)), ("b", "ruta", (2,)), ("c", "ruta", (1, 2))]
    assert find_protected_words(searches(*rows), documents(*titles), seed=0) == kept


def test_of_very_many_documents_a_sample_tells_what_is_common(monkeypatch):
    monkeypatch.setattr("corewrite.evaluation.protected_words._SAMPLE", 300)
    titles = [
        "filler",
        "ruta one",
        "ruta two",
        *(f"the {'ruta' if i % 9 == 0 else 'sela' if i % 60 == 0 else ''}" for i in range(4_000)),
    ]
    catalogue = documents(*titles)
    sela = [i for i, title in enumerate(titles) if "sela" in title][:2]
    rows = [(user, word, tuple(good)) for user in "abc" for word, good in (("ruta", (1, 2)), ("sela", sela))]
    assert find_protected_words(searches(*rows), catalogue, seed=0) == {"sela"}
    assert find_protected_words([], catalogue, seed=0) == frozenset()


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """A world, and the searches that a week's log of it gives."""
    world = make_world(WorldConfig(seed=5, videos=4_000, entities=120))
    cold = embedded_deployment(world.catalogue, cold_start(world.catalogue, seed=5), default_spec())
    path = tmp_path_factory.mktemp("week") / "w0.ndjson"
    write_log(simulate_week(world, TrafficConfig(), NoRewriter(cold.cascade), week=0, sessions=2_500), world.catalogue, path)
    window = read_window(path)
    return world, window.instances(world.catalogue, seed=5), window.instances(world.catalogue, seed=5, for_gate=True)


def test_on_a_simulated_week_they_are_the_words_of_entities(week):
    world, trained, gated = week
    found = find_protected_words(trained, world.catalogue, seed=5)
    assert found == find_protected_words(trained[::-1], world.catalogue, seed=5), "not by order"
    entities = {w for name in (*world.names, *world.aliases) for w in words(name)}
    aspects = {canonical for canonical, _ in ASPECTS}
    known = entities | aspects | {w for _, typed in ASPECTS for w in typed} | {*FILLERS, *PADDING}
    # Precision: names, and the aspects that titles call by the same word; never a slip, never padding.
    assert len(found & entities) / len(found) > 0.75 and found <= entities | aspects | {
        w for _, typed in ASPECTS for w in typed
    }
    asked = [w for x in gated for w in words(x.query.text)]
    slips = {w for w in asked if w not in known and not w.isdigit()}
    assert len(slips) > 30 and found.isdisjoint(slips) and found.isdisjoint({*FILLERS, *PADDING} - aspects)
    # Recall, of what the gate's users type: names asked for by hardly anybody are missing, and those that the titles which
    # satisfy often call otherwise, as an engine that knows other names finds them too.
    names = [w for w in asked if w in {v for name in world.names for v in words(name)}]
    assert sum(w in found for w in names) / len(names) > 0.5


def test_a_rewriter_that_drops_names_is_told_from_one_that_mends_and_completes(week):
    """The very check of the gate: without protected words it sees neither."""
    world, trained, gated = week
    found = find_protected_words(trained, world.catalogue, seed=5)
    names = {w for name in world.names for w in words(name)}
    queries = [x.query for x in gated]
    mended = [" ".join(w for w in words(q.text) if w in names or w not in PADDING) + " concert" for q in queries]
    dropped = [" ".join(w for w in words(q.text) if w not in names or i % 4) or "video" for i, q in enumerate(queries)]
    none = [""] * len(queries)

    def lost(rewrites, protected):
        sides = [PolicyOutputs(texts, None, None) for texts in (rewrites, none)]
        evaluation = Evaluation([x.user_id for x in gated], queries, {}, *sides, None, protected_words=protected)
        config = GateConfig(resamples=60, subsamples=60)
        resampling = Resampling.draw(evaluation.user_ids, resamples=60, subsamples=60, seed=0)
        return CHECKS["entities_dropped"](config).compute(evaluation, resampling).candidate

    assert all(is_gate_user(x.user_id) for x in gated) and not any(is_gate_user(x.user_id) for x in trained)
    margin = GateConfig().margins.of("entities_dropped")
    assert lost(mended, found) < margin < lost(dropped, found)
    assert lost(dropped, frozenset()) == 0.0 and lost(dropped, found) == pytest.approx(0.25 * 0.45, abs=0.06)
