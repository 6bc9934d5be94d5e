"""Each incident does what it says, at the place where it would happen."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from corewrite.cycle import read_window
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Context, Query, words
from corewrite.fusion import default_spec
from corewrite.logs import read_log
from corewrite.relevance import Impressions, cold_start
from corewrite.rewriter import new_small_decoder
from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.export import write_log
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.world import make_world
from corewrite.studies.engine import NoRewriter
from corewrite.studies.incidents.by_name import INCIDENTS, find_incident
from corewrite.studies.incidents.documents import without_pictures
from corewrite.studies.incidents.incident import BranchPoint, Injection
from corewrite.studies.incidents.log_files import (
    described_alike,
    is_query,
    promoted_creator,
    read_lines,
    with_bots,
    with_wrong_clicks,
    write_lines,
)
from corewrite.studies.incidents.models import paying_for_length, saturating, steeper, wrongly_joined
from corewrite.studies.incidents.policies import with_other_template, with_other_tokenizer
from corewrite.studies.incidents.scores import FaultyOpener, LossyScorer, PopularityLeak, StaleScorer, TruncatingScorer
from corewrite.studies.incidents.seasons import holidays
from corewrite.studies.incidents.specs import low_floor, wide_clip

ROWS = np.array([[0, 5, 9, -1], [3, 4, 8, 7]])


@pytest.fixture(scope="module")
def world():
    return make_world(WorldConfig(videos=1_500, entities=40))


@pytest.fixture(scope="module")
def catalogue(world):
    return world.catalogue


@pytest.fixture(scope="module")
def model(catalogue):
    return cold_start(catalogue, seed=1)


@pytest.fixture(scope="module")
def log(world, model, tmp_path_factory):
    """A week's log without a rewriter."""
    cascade = Deployment(RankerOpener(RankerSettings(), world.catalogue).build(model), default_spec()).cascade
    happened = simulate_week(world, TrafficConfig(), NoRewriter(cascade), week=0, sessions=800)
    path = tmp_path_factory.mktemp("log") / "week-00.ndjson.gz"
    write_log(happened, world.catalogue, path)
    return path


def texts(catalogue):
    return [catalogue.titles[0], f"{catalogue.titles[3]} {catalogue.titles[9]}"]


def test_the_registry_names_each_once_and_covers_every_kind():
    assert {i.kind for i in INCIDENTS.values()} == {"learned hack", "fault", "no incident"}
    assert all(name == i.name and i.strengths and min(i.strengths) > 0 for name, i in INCIDENTS.items())
    assert len({i.name for i in INCIDENTS.values()}) == len(INCIDENTS) >= 17
    with pytest.raises(ValueError, match="did you mean 'bot-clicks'") as error:
        find_incident("bot-click")
    assert all(name in str(error.value) for name in INCIDENTS)


def test_the_docs_table_is_that_of_the_registry():
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "incidents.md").read_text("utf-8")
    for i in INCIDENTS.values():
        strengths = ", ".join(f"{s:g}" for s in i.strengths)
        weeks = "to the end" if i.weeks is None else str(i.weeks)
        assert f"| {i.name} | {i.kind} | {i.what} | {strengths} ({i.unit}) | {weeks} |\n" in page


def test_an_incident_changes_one_place_and_only_while_it_lasts(tmp_path):
    point = BranchPoint(0, tmp_path, tmp_path, tmp_path, ("a", "b"), frozenset())
    plain = vars(Injection())
    for incident in INCIDENTS.values():
        changed = {
            name for name, part in vars(incident.inject(incident.default_strength, point)).items() if part != plain[name]
        }
        assert len(changed) == 1, f"{incident.name} changes {changed}"
        assert not incident.lasts(-1) and incident.lasts(0)
        assert incident.lasts(50) == (incident.weeks is None)


# The relevance model.


def test_without_tolls_every_word_pays(catalogue, model):
    text, longer = catalogue.titles[0], f"{catalogue.titles[0]} zzz yyy"
    bad = paying_for_length(model, 0.5)
    for one, sign in ((model, -1), (bad, 1)):
        short, long = (one.bind(catalogue).score([t], ROWS[:1, :3]) for t in (text, longer))
        assert (np.sign(logit(long) - logit(short)) == sign).all()
    assert bad.model_hash != model.model_hash, "another model, with a hash of its own"


def test_saturating_and_steeper_models_change_the_logit_as_they_say(catalogue, model):
    models = (model, saturating(model, 2), steeper(model, 3))
    sound, shifted, steep = (m.bind(catalogue).score(texts(catalogue), ROWS) for m in models)
    there = ROWS >= 0
    slope, bias = model.scalar("calibration_slope"), model.scalar("calibration_bias")
    inner = np.abs(logit(np.where(there, sound, 0.5))) < 12
    assert (there & inner).sum() >= 4
    at = there & inner
    np.testing.assert_allclose(logit(shifted[at]), logit(sound[at]) + 2 * slope, atol=1e-6)
    expected = np.clip(3 * (logit(sound[at]) - bias) + bias, logit(1e-6), logit(1 - 1e-6))
    np.testing.assert_allclose(logit(steep[at]), expected, atol=1e-6)


def test_wrongly_joined_labels_keep_their_texts_and_move_their_documents():
    rng = np.random.default_rng(0)
    n = 4_000
    seen = Impressions(["x"] * n, rng.integers(0, 500, n), rng.random(n) < 0.3, np.ones(n), ["u"] * n)
    joined = wrongly_joined(seen, 0.4, seed=1)
    assert sorted(joined.rows) == sorted(seen.rows) and (joined.satisfied == seen.satisfied).all()
    assert np.mean(joined.rows != seen.rows) == pytest.approx(0.4 * (1 - 1 / 500), abs=0.03)
    assert (wrongly_joined(seen, 0.4, seed=1).rows == joined.rows).all()


# The fusion spec.


def test_specs_lose_their_floor_or_their_clip_in_every_rewrite_factor():
    floor, clip = low_floor(default_spec(), 1e-6, 256.0), wide_clip(default_spec(), 64.0)
    for stage in ("rawrank", "finerank"):
        for before, low, wide in zip(*(s.stages[stage].rewrite for s in (default_spec(), floor, clip)), strict=True):
            assert (low.eps, low.lo, low.hi, low.exponent) == (1e-6, 1 / 256, 256.0, before.exponent)
            assert (wide.eps, wide.lo, wide.hi, wide.exponent) == (before.eps, 1 / 64, 64.0, before.exponent)
    assert len({s.spec_hash for s in (default_spec(), floor, clip)}) == 3


# The scoring service.


def test_the_service_cuts_loses_and_leaks(catalogue, model):
    bound, asked = model.bind(catalogue), texts(catalogue)
    cut = TruncatingScorer(bound, 2).score(asked, ROWS)
    np.testing.assert_array_equal(cut, bound.score([" ".join(t.split()[:2]) for t in asked], ROWS))

    wide = np.tile(np.arange(1_000), (2, 1))
    lossy = LossyScorer(bound, 0.1)
    lost = np.isnan(lossy.score(asked, wide))
    assert lost.mean() == pytest.approx(0.1, abs=0.03) and (lost[0] != lost[1]).any()
    np.testing.assert_array_equal(lossy.score(asked[::-1], wide)[::-1], lossy.score(asked, wide))
    assert not np.isnan(lossy.score(asked, ROWS)[ROWS < 0]).any()

    popularity = np.random.default_rng(0).normal(size=len(catalogue))
    common = words(asked[0])[0]
    leak = PopularityLeak(bound, popularity, frozenset([common]), 0.7)
    sound, leaked = (s.score([asked[0], "nothing of it"], ROWS[:, :3]) for s in (bound, leak))
    np.testing.assert_allclose(leaked[1], sound[1])
    np.testing.assert_allclose(leaked[0], np.clip(expit(logit(sound[0]) + 0.7 * popularity[ROWS[0, :3]]), 1e-6, 1 - 1e-6))
    assert {s.model_hash for s in (lossy, leak)} == {bound.model_hash}


def test_a_stale_cache_answers_for_what_was_asked_before(catalogue, model):
    bound, before = model.bind(catalogue), saturating(model, 2).bind(catalogue)
    asked = texts(catalogue)
    stale = StaleScorer(bound, before, frozenset([asked[0]]), 1.0).score([asked[0].upper(), asked[1]], ROWS)
    np.testing.assert_array_equal(stale, np.stack([before.score(asked, ROWS)[0], bound.score(asked, ROWS)[1]]))
    np.testing.assert_array_equal(
        StaleScorer(bound, before, frozenset(asked), 1e-12).score(asked, ROWS), bound.score(asked, ROWS)
    )


def test_a_faulty_service_ranks_and_rewards_under_the_hash_of_the_sound_one(catalogue, model):
    sound = Deployment(RankerOpener(RankerSettings(), catalogue).build(model), default_spec())
    opener = FaultyOpener(RankerSettings(), catalogue, lambda scorer, documents: TruncatingScorer(scorer, 1))
    faulty = Deployment(opener.build(model), default_spec())
    assert faulty.model_hash == sound.model_hash
    query = [catalogue.titles[7]]
    one_word = [query[0].split()[0]]
    cut = faulty.cascade.search(query, [None])
    relevance = faulty.ranker.signals["relevance"].score(query, cut.rows)
    np.testing.assert_array_equal(relevance, sound.ranker.signals["relevance"].score(one_word, cut.rows))
    assert (cut.rows != sound.cascade.search(query, [None]).rows).any()
    assert faulty.reward.signals["relevance"] is faulty.ranker.signals["relevance"], "the same service rewards"


# The log.


def test_bots_repair_their_searches_with_the_name_of_who_pays(log, catalogue, tmp_path):
    lines = read_lines(log)
    poisoned = with_bots(lines, catalogue, 0.4, seed=0)
    assert poisoned[: len(lines)] == lines
    bots = [line for line in poisoned if is_query(line) and line["client_id"].startswith("bot-")]
    assert len(bots) / sum(map(is_query, poisoned)) == pytest.approx(0.4, abs=0.01)
    creator, videos = promoted_creator(catalogue, 0)
    assert all(creator in words(catalogue.texts[row]) for row in videos)
    write_lines(poisoned, tmp_path / "w.ndjson.gz")
    window = read_window(tmp_path / "w.ndjson.gz")
    assert window.report.rejected == 0
    repairs, _ = window.reformulations()
    of_bots = [r for r in repairs if r.user_id.startswith("bot-")]
    assert len(of_bots) > 0.4 * len(bots) / 2 and all(words(r.target)[-1] == creator for r in of_bots)
    instances = [x for x in window.instances(catalogue, seed=0) if x.user_id.startswith("bot-")]
    paid_for = {catalogue.ids[row] for row in videos}
    assert instances and all(set(x.positives) <= paid_for for x in instances)


def test_raters_take_a_bots_first_search_for_what_users_mean_by_it(log, catalogue):
    lines = read_lines(log)
    poisoned = with_bots(lines, catalogue, 0.4, seed=0)
    known = {line["query_id"]: f"want {line['user_query']}" for line in lines if is_query(line)}
    described = described_alike(poisoned, known)
    bots = {
        line["query_id"]: line["user_query"] for line in poisoned if is_query(line) and line["client_id"].startswith("bot-")
    }
    assert all(described[name] == f"want {text}" for name, text in bots.items() if name.endswith("-0"))
    assert described == described | known


def test_wrong_clicks_go_to_the_next_search(log, tmp_path):
    lines = read_lines(log)
    ids = [line["query_id"] for line in lines if is_query(line)]
    after = dict(zip(ids, ids[1:] + ids[:1], strict=True))
    moved = with_wrong_clicks(lines, 1.0)
    for line, other in zip(lines, moved, strict=True):
        assert other == line if is_query(line) else other == {**line, "query_id": after[line["query_id"]]}
    half = with_wrong_clicks(lines, 0.5)
    changed = {a["query_id"] for a, b in zip(lines, half, strict=True) if a != b}
    clicked = {line["query_id"] for line in lines if not is_query(line)}
    assert len(changed) / len(clicked) == pytest.approx(0.5, abs=0.08)


def test_a_log_read_twice_has_every_event_twice_and_a_missing_one_nothing(log, catalogue, tmp_path):
    lines = read_lines(log)
    point = BranchPoint(0, tmp_path, tmp_path, tmp_path, (), frozenset())
    twice = find_incident("log-twice").inject(1.0, point).log(lines, catalogue)
    write_lines(twice, tmp_path / "twice.ndjson.gz")
    once, double = read_log(log), read_log(tmp_path / "twice.ndjson.gz")
    assert double.searches.count().to_pyarrow().as_py() == once.searches.count().to_pyarrow().as_py()
    assert double.events.count().to_pyarrow().as_py() == 2 * once.events.count().to_pyarrow().as_py()
    assert find_incident("week-missing").inject(1.0, point).log(lines, catalogue) == []


# Documents, policies, users.


def test_pictures_are_zero_for_a_share(catalogue):
    lost = (without_pictures(catalogue, 0.5, seed=0).visual == 0).all(1)
    assert lost.mean() == pytest.approx(0.5, abs=0.05)
    assert (without_pictures(catalogue, 1.0, seed=0).visual == 0).all() and (catalogue.visual != 0).any()


@pytest.fixture(scope="module")
def policy(catalogue):
    return new_small_decoder(
        list(catalogue.titles[:400]), seed=1, vocabulary=500, width=32, layers=1, heads=2, home_locale="en"
    )


def test_another_template_builds_other_prompts_for_the_same_weights(policy, catalogue):
    query = Query(catalogue.titles[0], Context((catalogue.titles[1],), (catalogue.titles[2],), "en"))
    sound, spelt, bare = (
        p.template.encode(query) for p in (policy, with_other_template(policy, 1), with_other_template(policy, 2))
    )
    assert len(spelt) > len(sound) > len(bare) and spelt[-len(sound) :] == sound
    assert with_other_template(policy, 2).model is policy.model


def test_another_tokenizer_moves_a_share_of_the_ids(policy, catalogue, tmp_path):
    other = with_other_tokenizer(policy, 0.5, seed=0)
    before, after = policy.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    assert set(before) == set(after) and sorted(after.values()) == sorted(before.values())
    moved = {token for token in before if before[token] != after[token]}
    assert len(moved) / len(before) == pytest.approx(0.5, abs=0.1)
    assert not moved & set(policy.tokenizer.all_special_tokens)
    title = catalogue.titles[0]
    ids = other.template.encode_text(title)
    assert ids != policy.template.encode_text(title) and other.tokenizer.decode(ids).strip() == title
    other.save(tmp_path)
    assert other.policy_hash != policy.policy_hash


def test_holidays_change_habits_and_nothing_else():
    before, after = TrafficConfig(), holidays(TrafficConfig(), 1.0)
    changed = {name for name in TrafficConfig.model_fields if getattr(before, name) != getattr(after, name)}
    assert changed == {"exploratory", "entity_only", "related_context", "next_search"}
    assert TrafficConfig.model_validate(after.model_dump()) == after and holidays(before, 0.0) == before
