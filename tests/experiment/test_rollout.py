from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import ValidationError

from corewrite.domain.traffic_split import in_treatment
from corewrite.experiment.rollout.config import RolloutConfig
from corewrite.experiment.rollout.progressive import RolloutState, step
from corewrite.experiment.rollout.users import Observation, Sums, observe
from corewrite.experiment.sequential import contrast_bounds

SHADOW, ONE, TEN, HALF = range(4)
CONFIG = RolloutConfig()
STAGES = CONFIG.stages


def sums(users, give_up=0.3, errors=0.001, neutral_share=0.05, change_query=0.2, unsatisfied=0.5):
    return Sums(users, users * give_up, users * errors, users * neutral_share, users * change_query, users * unsatisfied)


def observed(state, treated, name="o", **rates):
    """`treated` users with these rates, against control as it should be."""
    share = state.share(CONFIG)
    controls = round(treated * (1 - share) / share) if share else 0
    return Observation(name, state.since, state.since + 3600, sums(controls), sums(treated, **rates))


def at(stage):
    return RolloutState(champion=7, previous=6, since=100.0, stage=stage)


# The users


def test_a_user_once_in_stays_in():
    users = [f"user-{i}" for i in range(20_000)]
    groups = [{u for u in users if in_treatment(u, "ramp-7", share)} for share in (0, 0.01, 0.1, 0.5, 1)]
    assert all(small < large for small, large in zip(groups, groups[1:], strict=False))
    assert [len(g) / len(users) for g in groups] == pytest.approx([0, 0.01, 0.1, 0.5, 1], abs=0.01)


def test_golden_users():
    """Fixed for ever: a change would move users in the middle of a rollout."""
    assert [u for u in map(str, range(60)) if in_treatment(u, "ramp-7", 0.1)] == ["22", "41", "42"]


@pytest.mark.parametrize(("salt", "share", "message"), [("", 0.5, "salt"), ("a", -0.1, "share -0.1"), ("a", 1.1, "share 1.1")])
def test_no_such_share(salt, share, message):
    with pytest.raises(ValueError, match=message):
        in_treatment("u", salt, share)


def table(*rows):
    names = ("user_id", "arm", "timestamp", "gave_up", "error", "neutral")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


ROWS = [
    ("a", "treatment", 1000.0, True, False, True),
    ("a", "treatment", 1059.0, False, False, False),  # Same window: averaged.
    ("a", "treatment", 1060.0, True, True, True),  # Later window: left out.
    ("b", "control", 999.0, True, True, True),  # Before the stage.
    ("b", "control", 1130.0, False, True, False),
    ("c", "control", 1179.0, True, False, False),
    ("d", "control", 1180.0, True, True, True),  # Last window is not over.
]


def test_observe_by_hand():
    seen = observe(table(*ROWS), observation_id="o", since=1000.0, until=1200.0, window=60.0)
    assert seen == Observation("o", 1000.0, 1200.0, Sums(2, 1.0, 1.0, 0.0), Sums(1, 0.5, 0.0, 0.5))


def test_what_was_counted_is_not_revised():
    """Later logs of the same stage only add users, in whatever order their rows come."""
    rng = np.random.default_rng(0)
    searches = table(
        *(
            (str(user), "control", float(when), bool(rng.random() < 0.4), False, False)
            for user, when in zip(rng.integers(0, 300, 2000), rng.uniform(0, 10_000, 2000), strict=True)
        )
    )
    earlier = observe(searches, observation_id="1", since=0.0, until=4000.0, window=100.0).control
    cut = searches.filter(pa.array(np.asarray(searches["timestamp"]) < 4000.0))
    shuffled = cut.take(rng.permutation(len(cut)))
    again = observe(shuffled, observation_id="2", since=0.0, until=4000.0, window=100.0).control
    assert (again.users, again.give_up) == (earlier.users, pytest.approx(earlier.give_up))
    later = observe(searches, observation_id="3", since=0.0, until=10_000.0, window=100.0).control
    assert later.users > earlier.users
    assert 0 <= later.give_up - earlier.give_up <= later.users - earlier.users


def test_an_empty_log_has_no_users():
    seen = observe(table(*ROWS), observation_id="o", since=5000.0, until=6000.0)
    assert (seen.control, seen.treatment) == (Sums(), Sums())


@pytest.mark.parametrize(
    ("searches", "options", "message"),
    [
        (table(*ROWS).drop_columns("error"), {}, "lack column 'error'"),
        (table(("a", "control", 1.0, None, False, False)), {}, "'gave_up' holds nulls"),
        (table(("a", "control", 1.0, 2.0, False, False)), {}, "'gave_up' must be"),
        (table(("a", "control", "now", True, False, False)), {}, "'timestamp' is string"),
        (table(("a", "holdback", 1.0, True, False, False)), {}, "'holdback'"),
        (table(("a", "control", 1.0, 1, 0, 0), ("a", "treatment", 1.0, 1, 0, 0)), {}, "1 users are in both arms, such as 'a'"),
        (table(*ROWS), {"window": 0.0}, "window 0"),
        (table(*ROWS), {"until": -1.0}, "until -1"),
    ],
)
def test_no_such_log(searches, options, message):
    with pytest.raises(ValueError, match=message):
        observe(searches, **({"observation_id": "o", "since": 0.0, "until": 9e9} | options))


# The settings


def test_alpha_is_shared_by_all_metrics_and_stages():
    assert CONFIG.level == pytest.approx(0.05 / 17)  # 2 limits in the shadow stage, 5 in each of three others


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"share": 0.0, "minimum_users": 1, "limits": {"errors": {"plus": 0.1}}}], "times_control 0"),
        ([{"share": 0.0, "minimum_users": 1, "limits": {"give_up": {"times_control": 0}}}], "errors and neutral_share"),
        ([{"share": s, "minimum_users": 1, "limits": {"errors": {}}} for s in (0.1, 0.1)], "must rise"),
        ([{"share": 1.0, "minimum_users": 1, "limits": {"errors": {}}}], "less than 1"),
        ([{"share": 0.1, "minimum_users": 1, "limits": {}}], "at least 1 item"),
        ([], "at least 1 item"),
    ],
)
def test_no_such_stages(stages, message):
    with pytest.raises(ValidationError, match=message):
        RolloutConfig.model_validate({"stages": stages})


# The rollout


def test_a_good_version_goes_all_the_way():
    state, kinds, shares = RolloutState(champion=7, previous=6, since=0.0), [], []
    for users in (3_000, 3_000, 30_000, 200_000):
        shares.append(state.share(CONFIG))
        state, decision = step(state, observed(state, users, f"o{users}-{state.stage}"), CONFIG)
        kinds.append(decision.kind)
    assert kinds == ["advance", "advance", "advance", "complete"]
    assert shares == [0.0, 0.01, 0.1, 0.5]
    assert (state.status, state.share(CONFIG), state.since) == ("complete", 1.0, 3 * 3600.0)
    assert {state.version_for(str(i), CONFIG) for i in range(50)} == {7}


def test_shadow_serves_nobody_and_reads_no_give_up():
    state = at(SHADOW)
    assert {state.version_for(str(i), CONFIG) for i in range(50)} == {6}
    assert step(state, observed(state, 3_000, give_up=1.0), CONFIG)[1].kind == "advance"


@pytest.mark.parametrize(
    ("stage", "rates", "metric"),
    [
        (SHADOW, {"errors": 0.1}, "errors"),
        (SHADOW, {"neutral_share": 0.5}, "neutral_share"),
        (ONE, {"give_up": 0.6}, "give_up"),
        (TEN, {"errors": 0.1}, "errors"),
        (HALF, {"neutral_share": 0.2}, "neutral_share"),
    ],
)
def test_a_harm_rolls_back_before_the_minimum_of_users(stage, rates, metric):
    state = at(stage)
    users = 900
    assert users < STAGES[stage].minimum_users
    state, decision = step(state, observed(state, users, **rates), CONFIG)
    assert (decision.kind, decision.metric) == ("rollback", metric)
    assert decision.bound > decision.margin == STAGES[stage].limits[metric].plus
    assert f"{decision.bound:+.4f}" in decision.reason
    assert (state.status, state.share(CONFIG), state.version_for("u", CONFIG)) == ("rolled back", 0.0, 6)


def test_a_harm_within_the_limit_does_not_roll_back():
    state = at(TEN)
    assert step(state, observed(state, 200_000, give_up=0.315), CONFIG)[1].kind == "advance"


def test_waits_for_users():
    state = at(TEN)
    decision = step(state, observed(state, 1_234), CONFIG)[1]
    assert (decision.kind, decision.missing_users, decision.metric) == ("wait", 5_000 - 1_234, None)
    no_control = replace(observed(state, 9_000), control=Sums())
    assert "control has 0 of 5000" in step(state, no_control, CONFIG)[1].reason


def test_waits_for_a_bound_and_says_for_how_long():
    state = at(TEN)
    decision = step(state, observed(state, 6_000), CONFIG)[1]
    assert (decision.kind, decision.metric) == ("wait", "change_query")  # the rarest of what users do
    assert decision.bound > decision.margin
    # The estimate leads to where the rollout goes on, near enough: the width falls a little slower than the root.
    enough = round(1.1 * (6_000 + decision.missing_users))
    assert step(state, observed(state, enough), CONFIG)[1].kind == "advance"
    assert step(state, observed(state, 6_000 + decision.missing_users // 2), CONFIG)[1].kind == "wait"


def test_what_users_do_is_watched_beside_giving_up():
    """Fewer repairs alone can be despair, more satisfaction alone cannot: each of the three has its limit."""
    state = at(TEN)
    for metric, rate in (("change_query", 0.3), ("unsatisfied", 0.7)):
        _, decision = step(state, observed(state, 60_000, **{metric: rate}), CONFIG)
        assert (decision.kind, decision.metric) == ("rollback", metric)
    unsaid = replace(observed(state, 60_000), treatment=replace(sums(60_000), change_query=None))
    with pytest.raises(ValueError, match="says nothing of change_query"):
        step(state, unsaid, CONFIG)


def test_a_log_that_lost_lines_shows_nothing_good():
    state = at(TEN)
    good = observed(state, 60_000)
    assert step(state, good, CONFIG)[1].kind == "advance"
    decision = step(state, replace(good, lost_share=0.02), CONFIG)[1]
    assert decision.kind == "wait" and decision.reason.startswith("2.0% of the searches are not in the log, at most 1.0%")
    # Harm is harm all the same.
    bad = replace(observed(state, 60_000, give_up=0.6), lost_share=0.02)
    assert step(state, bad, CONFIG)[1].kind == "rollback"


def test_a_rollout_of_before_goes_on():
    """States written before changed queries were watched lack them; their settings do not limit them."""
    limits = {"give_up": {"times_control": 1.1}, "errors": {"plus": 0.01}}
    earlier = RolloutConfig.model_validate({"stages": [{"share": 0.1, "minimum_users": 10, "limits": limits}]})
    text = RolloutState(champion=7, previous=6, since=0.0, control=Sums(9, 1.0, 0.0, 0.0)).to_json()
    text = text.replace(',"change_query":null,"unsatisfied":null', "")
    assert "change_query" not in text
    state = RolloutState.from_json(text)
    seen = Observation("o", 0.0, 3600.0, Sums(90_000, 27_000.0, 90.0, 0.0), Sums(10_000, 3_000.0, 10.0, 0.0))
    assert step(state, seen, earlier)[1].kind == "complete"


def test_waits_without_hope():
    state = at(TEN)
    decision = step(state, observed(state, 6_000, give_up=0.335), CONFIG)[1]
    assert (decision.kind, decision.missing_users) == ("wait", None)


def test_exactly_at_the_limits_nothing_is_decided():
    """Neither a false alarm nor a false pass, however often one looks; how rarely they come: see test_sequential."""
    rng = np.random.default_rng(5)
    limits = {"give_up": 0.3 * 1.3, "change_query": 0.2 * 1.3, "unsatisfied": 0.5 * 1.3, "errors": 0.021, "neutral_share": 0.15}
    control = {"give_up": 0.3, "change_query": 0.2, "unsatisfied": 0.5, "errors": 0.001, "neutral_share": 0.05}
    for _ in range(8):
        state = at(ONE)
        seen = dict.fromkeys(limits, (0.0, 0.0))
        for hour in range(1, 13):
            seen = {m: (c + rng.binomial(10_000, control[m]), t + rng.binomial(100, limits[m])) for m, (c, t) in seen.items()}
            arms = (Sums(hour * n, **{m: s[i] for m, s in seen.items()}) for i, n in enumerate((10_000, 100)))
            state, decision = step(state, Observation(str(hour), state.since, hour * 3600.0 + 100, *arms), CONFIG)
            assert decision.kind == "wait"


def test_json_round_trip():
    state = at(ONE)
    for name, users in (("x", 10), ("y", 700), ("z", 3_000)):
        state, _ = step(state, observed(state, users, name, give_up=1 / 3), CONFIG)
    assert [d.kind for d in state.history] == ["wait", "wait", "advance"]
    assert RolloutState.from_json(state.to_json()) == state
    with pytest.raises(ValueError, match="status"):
        RolloutState.from_json(state.to_json().replace("running", "walking"))


def test_an_observation_must_be_of_this_stage_and_whole():
    state = at(TEN)
    with pytest.raises(ValueError, match="begins at 99, the stage at 100"):
        step(state, replace(observed(state, 100), since=99.0), CONFIG)
    state, _ = step(state, observed(state, 100), CONFIG)
    with pytest.raises(ValueError, match="has 450 users in an arm, an earlier one had 900"):
        step(state, observed(state, 50, "later"), CONFIG)


RATE = st.sampled_from([0.0, 0.001, 0.05, 0.3, 0.32, 0.6])


class Rollout(RuleBasedStateMachine):
    """Any observations whatever, between them JSON round trips and repeats."""

    def __init__(self):
        super().__init__()
        self.state = at(SHADOW)
        self.seen = []
        self.users = 0

    @rule(more=st.integers(0, 60_000), give_up=RATE, errors=RATE, neutral_share=RATE)
    def observe(self, more, **rates):
        before = self.state
        self.users += more
        new = observed(before, self.users, f"o{len(self.seen)}", **rates)
        self.state, decision = step(before, new, CONFIG)
        if before.status != "running":
            assert self.state == before
            assert decision == before.history[-1]
            return
        self.seen.append((new, decision))
        assert self.state.history == (*before.history, decision)
        moved = {"wait": (0, "running"), "advance": (1, "running"), "complete": (0, "complete"), "rollback": (0, "rolled back")}
        assert (self.state.stage - before.stage, self.state.status) == moved[decision.kind]
        stage = STAGES[before.stage]
        lows, highs = zip(*(self.bounds(new, metric, limit) for metric, limit in stage.limits.items()), strict=True)
        enough = new.treatment.users >= stage.minimum_users
        expected = "rollback" if max(lows) > 0 else "go on" if enough and max(highs) <= 0 else "wait"
        assert {"advance": "go on", "complete": "go on"}.get(decision.kind, decision.kind) == expected
        if decision.kind == "advance":
            self.users = 0

    def bounds(self, new, metric, limit):
        control, treatment = ((arm.users, getattr(arm, metric)) for arm in (new.control, new.treatment))
        bounds = contrast_bounds(*control, *treatment, times_control=limit.times_control, alpha=0.05 / 11)
        return [float(bound) - limit.plus for bound in bounds]

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def repeat(self, data):
        observation, decision = data.draw(st.sampled_from(self.seen))
        assert step(self.state, observation, CONFIG) == (self.state, decision)

    @rule()
    def reload(self):
        assert RolloutState.from_json(self.state.to_json()) == self.state

    @invariant()
    def somebody_serves(self):
        assert self.state.version_for("user", CONFIG) in (6, 7)
        if self.state.status == "rolled back":
            assert self.state.share(CONFIG) == 0


TestRollout = Rollout.TestCase
TestRollout.settings = settings(max_examples=60, stateful_step_count=15)


def test_under_another_version_number_the_same_users_stay_in():
    config, users = RolloutConfig(), [f"u{i}" for i in range(500)]
    state = RolloutState(champion=5, previous=4, since=0.0, stage=3)
    carried = state.carried(6, 1.0).carried(7, 2.0)
    assert carried == RolloutState.from_json(carried.to_json())
    assert [carried.version_for(u, config) == 7 for u in users] == [state.version_for(u, config) == 5 for u in users]
    assert {carried.version_for(u, config) for u in users} == {4, 7}


@pytest.mark.parametrize("status", ["complete", "rolled back"])
def test_a_rollout_that_is_over_without_a_decision_is_said(status):
    state = RolloutState(2, 1, 0.0, status=status)
    with pytest.raises(ValueError, match=f"is {status}, and no decision says why"):
        step(state, Observation("a", 0.0, 1.0, Sums(), Sums()), RolloutConfig())
