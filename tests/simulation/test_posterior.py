"""The posterior over hidden intents against the platform itself: what it computes is counted over many simulated draws."""

import inspect
from collections import Counter, defaultdict

import numpy as np
import pytest
from scipy.stats import chi2

from corewrite.domain import Context, Query
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.examination import examine
from corewrite.simulation.intent_space import IntentSpace
from corewrite.simulation.intents import Intents
from corewrite.simulation.misspelling import meant_words, misspellings
from corewrite.simulation.posterior import IntentPosterior
from corewrite.simulation.queries import DRAWS, Told, type_query
from corewrite.simulation.sessions import Session, next_intent, open_sessions
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.vocabulary import ASPECTS, misspell
from corewrite.simulation.watched import CLICKED, PASSED, UNKNOWN, ClicksOnLists, WatchedBefore
from corewrite.simulation.week import ShownRanking
from corewrite.simulation.wording import TOLD, Wordings
from corewrite.simulation.world import NONE, make_world

TRAFFIC = TrafficConfig()
FASHION_WEEK = 9
"""Slang is said in this week."""


@pytest.fixture(scope="module")
def world():
    return make_world(WorldConfig(seed=31, videos=500, entities=20))


@pytest.fixture(scope="module")
def space(world):
    return IntentSpace(world)


def fits(counts, probability, total, at_least=8.0, alpha=1e-4):
    """Chi-square test of counts against probabilities; what is rare is pooled in one cell."""
    expected = {key: p * total for key, p in probability.items()}
    assert not {key for key in counts if not expected.get(key, 0.0) > 0}, "the platform does what has no probability"
    common = [key for key, e in expected.items() if e >= at_least]
    seen = np.array([counts.get(key, 0) for key in common], float)
    wanted = np.array([expected[key] for key in common])
    cells = (seen - wanted) ** 2 / wanted
    rest, rest_seen = total - wanted.sum(), total - seen.sum()
    if rest >= at_least:
        cells = np.append(cells, (rest_seen - rest) ** 2 / rest)
    assert len(common) >= 2
    assert cells.sum() < chi2.isf(alpha, len(cells) - 1), dict(zip(common, zip(seen, wanted, strict=True), strict=True))


@pytest.mark.parametrize("word", ["cars", "flechail", "bloopers", "review2", "oo"])
def test_misspellings_of_a_word_are_those_of_many_draws(word):
    n = 300_000
    counts = Counter(misspell(word, (i + 0.5) / n) for i in range(n))
    found = misspellings(word)
    assert sum(found.values()) == pytest.approx(1.0)
    assert counts.keys() <= found.keys()
    for text, probability in found.items():
        assert counts[text] / n == pytest.approx(probability, abs=2e-4)


def test_a_misspelling_leads_back_to_every_word_it_may_stand_for():
    meant = meant_words(["cars", "cart", "of"])
    assert {word for word, _ in meant["caas"]} >= {"cars"}, "doubled"
    assert {word for word, _ in meant["cas"]} == {"cars"}
    assert {word for word, _ in meant["cat"]} == {"cart"}
    assert "of" not in meant, "short words are typed right"


@pytest.mark.parametrize(
    ("kind", "told"), [*(("both", told) for told in TOLD), ("entity", Told.NOTHING), ("exploratory", Told.NOTHING)]
)
def test_texts_of_two_attempts_come_with_their_likelihood(world, space, kind, told):
    fashion = world.fashion(FASHION_WEEK)
    slangy = [a for a in fashion if fashion[a][1] > 0.5]
    place = next(
        i
        for i, (e, a) in enumerate(zip(space.intents.entity, space.intents.aspect, strict=True))
        if {"both": e != NONE and a in slangy, "entity": a == NONE, "exploratory": e == NONE and a in slangy}[kind]
    )
    intent = [int(x[place]) for x in (space.intents.entity, space.intents.aspect, space.intents.category)]
    rng, n = np.random.default_rng(3), 8_000
    pairs: Counter[tuple[str, str]] = Counter()
    for _ in range(n):
        habit = tuple(rng.random(2))
        one = type_query(world, TRAFFIC, *intent, told, 0, rng.random(DRAWS), habit, "", fashion).text
        two = type_query(world, TRAFFIC, *intent, told, 1, rng.random(DRAWS), habit, one, fashion).text
        pairs[one, two] += 1
    wordings = Wordings(space, TRAFFIC, fashion)
    t = TOLD.index(told)

    def of(text):
        found = wordings[text]
        assert place in found.places, f"{text!r} has no likelihood"
        return found.at(np.array([place]))

    firsts, seconds = {one for one, _ in pairs}, {two for _, two in pairs}
    habits = wordings.habits[:, :, [place]]
    likely = {
        (a, b): float((habits * of(a).first * of(b).after(of(a), a == b, wordings.mended))[t].sum())
        for a in firsts
        for b in seconds
    }
    single = {a: float((habits * of(a).first)[t].sum()) for a in firsts}
    assert habits.sum() == pytest.approx(1.0)
    fits(Counter(one for one, _ in pairs.elements()), single, n)
    fits(pairs, {pair: p for pair, p in likely.items() if p > 0}, n, at_least=12)


def test_every_likely_text_sums_to_one(world, space):
    """The enumeration itself: over all texts of an intent the likelihood is a distribution."""
    wordings = Wordings(space, TRAFFIC.model_copy(update={"misspell": 0.0}), {})
    place = next(i for i in range(len(space)) if space.intents.entity[i] != NONE and space.intents.aspect[i] != NONE)
    e, a = int(space.intents.entity[place]), int(space.intents.aspect[place])
    subjects, words = ("", world.names[e], world.aliases[e]), ("", ASPECTS[a][0], *ASPECTS[a][1])
    clean = {" ".join(filter(None, order)) for s in subjects for w in words for order in ((s, w), (w, s))} - {""}
    texts = clean | {f"{text} {pad}" for text in clean for pad in ("video", "best", "videos", "clip", "new", "tiktok")}
    total = np.zeros((2, len(TOLD)))
    for text in texts:
        found = wordings[text]
        if place in found.places:
            one = found.at(np.array([place]))
            for k, part in enumerate((one.first, one.later)):
                total[k] += (wordings.habits[:, :, [place]] * part).sum((1, 2, 3))
    np.testing.assert_allclose(total, 1.0)


def test_titles_watched_before_come_with_their_likelihood(world, space):
    n, week = 30_000, 2
    opened = open_sessions(world, TRAFFIC, week, np.arange(n), np.zeros(n, np.int64), lambda user: "a")
    counts = Counter((tuple(s.titles), s.told) for s in opened)
    fresh = space.fresh(world.interest(week), TRAFFIC, TRAFFIC.entity_only)
    assert fresh.sum() == pytest.approx(1.0)
    intents = Counter(space.place(s.entity, s.aspect, s.category) for s in opened)
    fits(intents, {i: p for i, p in enumerate(fresh) if p > 0}, n)
    watched = WatchedBefore(space, TRAFFIC)
    titles = {t for t, _ in counts}
    likely = {}
    for some in titles:
        found = fresh @ watched(some, more=False).T
        likely |= {(some, told): float(p) for told, p in zip(TOLD, found, strict=True)}
    fits(counts, {key: p for key, p in likely.items() if p > 0}, n)
    # Only the last title known: the sum over all sessions that end so.
    last = Counter((s.titles[-1], s.told) for s in opened if s.titles)
    likely = {}
    for title in {t for t, _ in last}:
        found = fresh @ watched((title,), more=True).T
        likely |= {(title, told): float(p) for told, p in zip(TOLD, found, strict=True)}
    fits(last, {key: p for key, p in likely.items() if p > 0}, n)
    nothing_known = watched((), more=True)
    np.testing.assert_allclose(nothing_known.sum(0), 1.0)
    fits(Counter(s.told for s in opened), dict(zip(TOLD, fresh @ nothing_known.T, strict=True)), n)


def test_the_next_intent_is_distributed_as_the_platform_draws_it(world, space):
    rng, n, week = np.random.default_rng(4), 8_000, 3
    for start in (
        0,
        int(np.flatnonzero(space.intents.aspect == NONE)[0]),
        int(np.flatnonzero(space.intents.entity == NONE)[0]),
    ):
        intent = [int(x[start]) for x in (space.intents.entity, space.intents.aspect, space.intents.category)]
        counts: Counter[int] = Counter()
        for _ in range(n):
            s = Session(0, 0, "u", "a", 0.0, [], [], *intent, Told.NOTHING, (0.5, 0.5))
            next_intent(world, TRAFFIC, week, s, rng.random(10))
            counts[space.place(s.entity, s.aspect, s.category)] += 1
        parts = space.next(np.eye(len(space))[start], world.interest(week), TRAFFIC)
        assert sum(part.sum() for part in parts) == pytest.approx(1.0)
        fits(counts, {i: p for i, p in enumerate(sum(parts)) if p > 0}, n)


def test_clicks_and_what_follows_come_with_their_likelihood(world, space):
    rng, n = np.random.default_rng(5), 40_000
    wanted = next(i for i in range(len(space)) if (world.video_entity == space.intents.entity[i]).sum() > 8)
    intent = space.intents.take(np.array([wanted]))
    rows = np.r_[np.flatnonzero(world.video_entity == intent.entity[0])[:5], np.arange(4), -1]
    many = Intents(*(np.repeat(x, n) for x in (intent.entity, intent.aspect, intent.category)))
    seen = examine(world, TRAFFIC, many, np.tile(rows, (n, 1)), np.full(n, 0.5), lambda purpose, width: rng.random((n, width)))
    change = np.where(seen.scent, TRAFFIC.change_query, TRAFFIC.change_query_blind)
    again = ~seen.felt & (rng.random(n) < change)
    other = ~again & (rng.random(n) < TRAFFIC.next_search)
    clicks = ClicksOnLists(space, TRAFFIC)
    counts: Counter[tuple] = Counter()
    for pattern, a, o in zip(map(tuple, seen.click.astype(int)), again, other, strict=True):
        counts[pattern, "again" if a else "other" if o else "end"] += 1
    likely = {}
    for pattern in {p for p, _ in counts}:
        known = np.where(np.array(pattern) == 1, CLICKED, PASSED)
        for name, p in zip(("again", "other"), clicks(rows, known, np.array([wanted])), strict=True):
            likely[pattern, name] = float(p[0])
    going = Counter({key: c for key, c in counts.items() if key[1] != "end"})
    fits(going, {key: p for key, p in likely.items() if p > 0}, n)
    # Nothing known of the first three documents: the sum over what may have happened there.
    part = rows.copy(), np.r_[[UNKNOWN] * 3, [PASSED] * 7]
    total = sum(p for (pattern, name), p in likely.items() if name == "again" and not any(pattern[3:]))
    assert float(clicks(*part, np.array([wanted]))[0][0]) == pytest.approx(total, rel=1e-6)


class FewLists:
    """Answers every query with one of three lists of so many documents, so that the same contexts come up again and again."""

    def __init__(self, world, documents=10) -> None:
        order = np.argsort(-world.catalogue.prior)
        self._lists = np.where(np.arange(10) < documents, order[:30].reshape(3, 10), -1)

    def lists(self, texts):
        return np.array([self._lists[len(text) % 3] for text in texts])

    def rank(self, asked):
        return ShownRanking(self.lists([a.query.text for a in asked]), np.zeros(len(asked), np.bool_))


@pytest.fixture(scope="module")
def counted(world):
    """A long week and the posterior of each of its searches."""
    engine = FewLists(world)
    week = simulate_week(world, TRAFFIC, engine, week=2, sessions=2_500)
    found = IntentPosterior(world, TRAFFIC, 2, engine.lists)(week.queries)
    return week, found


def keys_of(intents):
    return list(zip(intents.entity.tolist(), intents.aspect.tolist(), intents.category.tolist(), strict=True))


def probability_of(possible, intents, i):
    same = (
        (possible.intents.entity == intents.entity[i])
        & (possible.intents.aspect == intents.aspect[i])
        & (possible.intents.category == intents.category[i])
    )
    return float(possible.probability[same].sum()), bool(same[0])


def test_intents_of_equal_searches_are_distributed_as_the_posterior_says():
    """The same query in the same context, many times: frequencies of intents against the posterior, by chi-square.

    Every short name stands for two entities here, nothing is found, few sessions follow a video, and few queries are odd: many
    searches are alike and unsure, those after other queries too.
    """
    world = make_world(WorldConfig(seed=31, videos=500, entities=20, shared_alias=1.0))
    habits = {"empty_context": 0.95, "exploratory": 0.3, "misspell": 0.02, "padding": 0.03, "synonym": 0.1}
    traffic, engine = TRAFFIC.model_copy(update=habits), FewLists(world, documents=0)
    week = simulate_week(world, traffic, engine, week=2, sessions=12_000)
    by_key = defaultdict(list)
    for i, query in enumerate(week.queries):
        by_key[query.text, query.context.queries, query.context.titles].append(i)
    often = [places for places in by_key.values() if len(places) >= 8]
    found = IntentPosterior(world, traffic, 2, engine.lists)([week.queries[places[0]] for places in often])
    statistic, cells, in_context = 0.0, 0, 0
    for possible, places in zip(found, often, strict=True):
        n, p = len(places), possible.probability[0]
        if min(p, 1 - p) * n < 2:
            continue
        happened = keys_of(week.intents.take(np.array(places))).count(keys_of(possible.intents)[0])
        statistic += (happened - n * p) ** 2 / (n * p * (1 - p))
        cells += 1
        in_context += bool(week.queries[places[0]].context.queries)
    assert cells > 30 and in_context > 5, (cells, in_context)
    assert chi2.isf(0.9999, cells) < statistic < chi2.isf(1e-4, cells), (statistic, cells)


def test_the_posterior_is_calibrated(counted):
    week, found = counted
    told = [probability_of(f, week.intents, i) for i, f in enumerate(found)]
    assert min(p for p, _ in told) > 0, "what happened was taken for impossible"
    top, hit = np.array([f.probability[0] for f in found]), np.array([h for _, h in told])
    for low in np.arange(0.2, 1.0, 0.1):
        inside = (top >= low) & (top < low + 0.1 + (low > 0.85))
        if inside.sum() >= 30:
            error = np.sqrt((top[inside] * (1 - top[inside])).sum()) / inside.sum()
            assert abs(top[inside].mean() - hit[inside].mean()) < 4 * error + 0.01, low
    step = np.array([len(q.context.queries) for q in week.queries])
    for k in range(4):
        inside = step == k
        error = np.sqrt((top[inside] * (1 - top[inside])).sum()) / inside.sum()
        assert abs(top[inside].mean() - hit[inside].mean()) < 4 * error + 0.01, f"{k} earlier queries"


def test_every_part_of_what_is_known_helps(counted, world, space):
    """Mean log-likelihood of the intent: prior below text alone, below text and titles, below all."""
    week, found = counted
    fresh = space.fresh(world.interest(2), TRAFFIC, TRAFFIC.entity_only)
    wordings = Wordings(space, TRAFFIC, world.fashion(2))
    places = [space.place(*key) for key in keys_of(week.intents)]
    all_known = np.array([probability_of(f, week.intents, i)[0] for i, f in enumerate(found)])
    text_alone, last_alone = np.empty(len(week)), np.empty(len(week))
    for i, query in enumerate(week.queries):
        text = wordings[query.text]
        mass = fresh[text.places] * (wordings.habits[:, :, text.places] * (text.first + text.later)).sum((0, 1, 2))
        text_alone[i] = mass[np.searchsorted(text.places, places[i])] / mass.sum()
        last_alone[i] = max(fresh[places[i]], 1e-12)
    means = [float(np.log(p).mean()) for p in (last_alone, text_alone, all_known)]
    assert means[0] + 0.5 < means[1] and means[1] + 0.1 < means[2], means


def test_it_reads_queries_and_nothing_of_what_happened(world):
    engine = FewLists(world)
    week = simulate_week(world, TRAFFIC, engine, week=2, sessions=200)
    posterior = IntentPosterior(world, TRAFFIC, 2, engine.lists)
    bare = [Query(q.text, Context(q.context.queries, q.context.titles, "en")) for q in week.queries]
    one, two = posterior(week.queries), posterior(bare)
    assert all((a.probability == b.probability).all() for a, b in zip(one, two, strict=True))
    assert "Week" not in inspect.getsource(inspect.getmodule(IntentPosterior))


def test_what_no_user_types_is_refused(world):
    posterior = IntentPosterior(world, TRAFFIC, 2, FewLists(world).lists)
    with pytest.raises(ValueError, match="no user of the platform types 'zzz qqq'"):
        posterior([Query("zzz qqq")])
