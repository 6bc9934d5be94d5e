"""The same seed gives the same log, byte for byte; arms see common random numbers."""

import numpy as np
import pyarrow.parquet as pq

from corewrite.simulation.config import TrafficConfig, WorldConfig
from corewrite.simulation.export import write_log, write_signals
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import ShownRanking
from corewrite.simulation.world import NONE, make_world


def test_same_seed_same_bytes_other_seed_other_world(platform, tmp_path):
    config = WorldConfig(seed=5, videos=1_500, entities=40)
    again = make_world(config)
    assert again.catalogue.content_hash == platform.world.catalogue.content_hash
    week = simulate_week(again, TrafficConfig(), platform.engine, week=0, sessions=1_500)
    paths = [tmp_path / name for name in ("a.ndjson", "b.ndjson")]
    write_log(platform.week, platform.world.catalogue, paths[0])
    write_log(week, again.catalogue, paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    other = make_world(config.model_copy(update={"seed": 6}))
    assert other.catalogue.content_hash != again.catalogue.content_hash


def test_arms_that_rank_alike_see_the_same_users_do_the_same(platform):
    def run(assign_arm):
        return simulate_week(platform.world, TrafficConfig(), platform.engine, week=3, sessions=300, assign_arm=assign_arm)

    one, two = run(lambda user: "a"), run(lambda user: "b")
    assert one.query_ids == two.query_ids and one.queries == two.queries
    assert (one.click == two.click).all() and (one.watch_seconds == two.watch_seconds).all()


def test_a_users_draws_do_not_depend_on_who_else_searches(platform):
    """The first search of a session is the same among 300 sessions and among 600."""
    few = simulate_week(platform.world, TrafficConfig(), platform.engine, week=2, sessions=300, population=600)
    many = simulate_week(platform.world, TrafficConfig(), platform.engine, week=2, sessions=600, population=600)
    known = {q: (t, c.tolist()) for q, t, c in zip(many.query_ids, many.queries, many.click, strict=True)}
    shared = [i for i, q in enumerate(few.query_ids) if q in known]
    assert len(shared) > 0.9 * len(few)
    for i in shared:
        assert known[few.query_ids[i]] == (few.queries[i], few.click[i].tolist())


def test_users_see_only_what_they_examine(platform):
    week = platform.week
    rank = np.arange(week.click.shape[1])[None, :]
    assert not (week.click & (rank >= week.examined[:, None])).any()
    assert not (week.click & (week.ranking.rows < 0)).any()
    assert ((week.watch_seconds > 0) == week.click).all()


def test_better_results_satisfy_more(platform):
    """The world must answer to ranking, or no experiment on it could show anything."""
    world = platform.world

    class UpsideDown:
        def rank(self, asked):
            answers = platform.engine.rank(asked)
            return ShownRanking(np.ascontiguousarray(answers.rows[:, ::-1]), answers.impacted)

    right = simulate_week(world, TrafficConfig(), platform.engine, week=4, sessions=800)
    wrong = simulate_week(world, TrafficConfig(), UpsideDown(), week=4, sessions=800)
    assert right.felt.mean() > wrong.felt.mean() + 0.01


def test_exploratory_and_entity_only_searches_exist(platform):
    intents = platform.week.intents
    assert 0.02 < (intents.entity == NONE).mean() < 0.3
    assert ((intents.entity != NONE) & (intents.aspect == NONE)).any()


def test_side_table_holds_the_factors_of_what_was_displayed(platform, tmp_path):
    write_signals(platform.week, platform.world.catalogue, tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.num_rows == int((platform.week.ranking.rows >= 0).sum())
    assert {"query_id", "rank", "document_id", "original.relevance", "original.prior"} <= set(table.column_names)


def test_new_entities_are_born_and_interest_swings(platform):
    world = make_world(WorldConfig(seed=1, videos=1_000, entities=200))
    now, later = world.interest(0), world.interest(15)
    assert (now[world.birth > 0] == 0).all()
    assert (later[(world.birth > 0) & (world.birth <= 15)] > 0).all() and (world.birth > 0).any()
    assert 0.05 < 0.5 * np.abs(now - later).sum() < 0.9
