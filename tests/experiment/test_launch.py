"""Reading: which searches count for what, the statistics, the verdict."""

import json
import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import tea_tasting
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from corewrite.experiment import assign, pool_tables, read_launch

NAN = math.nan
NAMES = ("user_id", "timestamp", "outcome", "impacted", "plain_changed", "watch_seconds")
# The arm is the first letter; rows stand in no order.
ROWS = [
    ("c1", 3.0, "satisfied", True, 0.0, 5.0),
    ("c1", 1.0, "satisfied", False, 0.0, 10.0),
    ("c1", 2.0, "changed_unsatisfied", True, 1.0, 0.0),
    ("c2", 1.0, "gave_up", True, 0.0, 0.0),
    ("c3", 2.0, "gave_up", True, NAN, 1.0),
    ("c3", 1.0, "changed_unsatisfied", True, 1.0, 0.0),
    ("c4", 6.0, "satisfied", True, NAN, 4.0),
    ("c4", 5.0, "censored", True, NAN, 0.0),
    ("c5", 1.0, "satisfied", False, 0.0, 20.0),
    ("t1", 1.0, "satisfied", True, 0.0, 30.0),
    ("t2", 2.0, "satisfied", True, 0.0, 10.0),
    ("t2", 1.0, "changed_unsatisfied", True, 1.0, 0.0),
    ("t3", 1.0, "satisfied", True, 0.0, 5.0),
    ("t4", 1.0, "gave_up", True, 0.0, 0.0),
    ("t5", 1.0, "changed_unsatisfied", False, 1.0, 0.0),
]


def table(rows=ROWS):
    columns = dict(zip(NAMES, zip(*rows, strict=True), strict=True))
    return pa.table(columns | {"arm": ["control" if r[0].startswith("c") else "treatment" for r in rows]})


def test_golden_table_by_hand():
    result = read_launch("week 1", table())
    expected = {
        "cqr": (
            2 / 3,
            1 / 4,
            3,
            4,
        ),  # c4's first impacted search is censored: dropped, its next one not taken
        "give_up": (1 / 3, 1 / 4, 3, 4),
        "satisfied": (0.0, 2 / 4, 3, 4),
        "cqr_all_impacted": (2 / 6, 1 / 5, 4, 4),
        "give_up_all_impacted": (2 / 6, 1 / 5, 4, 4),
        "cqr_overall": (2 / 8, 2 / 6, 5, 5),
        "plain_cqr": (2 / 6, 2 / 6, 4, 5),
        "watch_seconds": (40 / 5, 45 / 5, 5, 5),
    }
    for name, values in expected.items():
        e = getattr(result, name)
        assert e.name == name
        assert (e.control, e.treatment, e.n_control, e.n_treatment) == pytest.approx(values), name
        if e.control:
            assert e.relative == pytest.approx(e.treatment / e.control - 1)
    assert (result.users, result.searches, result.impacted_users, result.impacted_searches) == (10, 15, 8, 12)
    assert result.share_impacted == 12 / 15
    assert result.srm_p_value == result.srm_triggered_p_value == 1.0

    # Welch by hand: variances of the means 1/9 and 1/16, difference -5/12, standard error 5/12.
    freedom = (25 / 144) ** 2 / ((1 / 9) ** 2 / 2 + (1 / 16) ** 2 / 3)
    assert result.cqr.p_value == pytest.approx(2 * stats.t.sf(1.0, freedom))
    # On the log scale: relative variances 1/4 and 1.
    half = stats.t.ppf(0.975, 1.25**2 / ((1 / 4) ** 2 / 2 + 1**2 / 3)) * math.sqrt(1.25)
    assert result.cqr.ci_low == pytest.approx(0.375 * math.exp(-half) - 1)
    assert result.cqr.ci_high == pytest.approx(0.375 * math.exp(half) - 1)
    assert math.isnan(result.satisfied.relative) and math.isnan(result.satisfied.ci_high)  # control has none


def test_equal_timestamps_go_by_row_order_across_chunks():
    rows = [*ROWS, ("c6", 1.0, "gave_up", True, 0.0, 0.0), ("c6", 1.0, "changed_unsatisfied", True, 0.0, 0.0)]
    one = table(rows)
    chunks = pa.concat_tables([one.slice(0, len(rows) - 1), one.slice(len(rows) - 1)])
    assert read_launch("x", chunks).give_up.control == 2 / 4
    rows[-2:] = rows[:-3:-1]
    assert read_launch("x", table(rows)).cqr.control == 3 / 4


OUTCOMES = ("satisfied", "changed_unsatisfied", "gave_up", "censored")
ROW = st.tuples(
    st.sampled_from(["c1", "c2", "c3", "c4", "t1", "t2", "t3", "t4"]),
    st.integers(0, 3).map(float),
    st.sampled_from(OUTCOMES),
    st.booleans(),
    st.sampled_from([0.0, 1.0, NAN]),
    st.integers(0, 9).map(float),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(ROW, min_size=12, max_size=40))
def test_metrics_against_brute_force(rows):
    """Plain loops over rows, for values and numbers of users, in tables without order."""
    by_user = defaultdict(list)
    for row in sorted(rows, key=lambda r: r[1]):
        by_user[row[0]].append(row)
    first = {u: next((r for r in rs if r[3]), None) for u, rs in by_user.items()}
    first = {u: r for u, r in first.items() if r and r[2] != "censored"}
    assume(all(sum(u[0] == arm for u in first) >= 2 for arm in "ct"))
    result = read_launch("x", table(rows))

    def agree(effect, above, below):
        for arm, value, n in (
            ("c", effect.control, effect.n_control),
            ("t", effect.treatment, effect.n_treatment),
        ):
            users = {r[0] for r in rows if r[0][0] == arm and below(r)}
            assert n == len(users)
            wanted = sum(above(r) for r in rows if r[0] in users and below(r)) / max(
                1, sum(1 for r in rows if r[0] in users and below(r))
            )
            if not math.isnan(value):
                assert value == pytest.approx(wanted)

    agree(result.cqr, lambda r: r[2] == "changed_unsatisfied", lambda r: first.get(r[0]) is r)
    agree(result.give_up, lambda r: r[2] == "gave_up", lambda r: first.get(r[0]) is r)
    ended = lambda r: r[2] != "censored"  # noqa: E731
    agree(result.cqr_all_impacted, lambda r: r[2] == "changed_unsatisfied", lambda r: r[3] and ended(r))
    agree(result.give_up_all_impacted, lambda r: r[2] == "gave_up", lambda r: r[3] and ended(r))
    agree(result.cqr_overall, lambda r: r[2] == "changed_unsatisfied", ended)
    agree(result.plain_cqr, lambda r: r[4], lambda r: not math.isnan(r[4]))
    for arm in ("control", "treatment"):
        assert sum(getattr(e, arm) for e in (result.cqr, result.give_up, result.satisfied)) == pytest.approx(1)


def test_tests_and_intervals_against_scipy_and_statsmodels(simulate):
    searches = simulate(np.random.default_rng(1), 4000, change=0.8)
    result = read_launch("x", searches)
    seen, sides = set(), {"control": [], "treatment": []}
    for row in searches.sort_by("timestamp").to_pylist():
        if row["impacted"] and row["user_id"] not in seen:
            seen.add(row["user_id"])
            sides[row["arm"]].append(row["outcome"])
    for effect, word in ((result.cqr, "changed_unsatisfied"), (result.give_up, "gave_up")):
        c, t = (np.array([o == word for o in sides[arm]], float) for arm in ("control", "treatment"))
        test = stats.ttest_ind(t, c, equal_var=False)
        assert effect.p_value == pytest.approx(test.pvalue, rel=1e-9)
        # Log-ratio interval of two proportions (Katz et al. 1978): normal for t and n for n - 1, so nearly.
        low, high = confint_proportions_2indep(t.sum(), len(t), c.sum(), len(c), compare="ratio", method="log")
        assert (effect.ci_low, effect.ci_high) == pytest.approx((low - 1, high - 1), abs=5e-4)
    wider = read_launch("x", searches, alpha=0.01)
    assert wider.cqr.ci_high - wider.cqr.ci_low > 1.25 * (result.cqr.ci_high - result.cqr.ci_low)
    watch = {arm: defaultdict(float) for arm in sides}
    for row in searches.to_pylist():
        watch[row["arm"]][row["user_id"]] += row["watch_seconds"]
    test = stats.ttest_ind(*(list(watch[arm].values()) for arm in watch), equal_var=False)
    assert result.watch_seconds.p_value == pytest.approx(test.pvalue, rel=1e-9)


def test_delta_method_agrees_with_a_bootstrap_over_users(simulate):
    rng = np.random.default_rng(2)
    searches = simulate(rng, 3000)
    effect = read_launch("x", searches).cqr_overall
    error = (math.log1p(effect.ci_high) - math.log1p(effect.ci_low)) / 2 / 1.96
    sums = {arm: defaultdict(lambda: [0.0, 0.0]) for arm in ("control", "treatment")}
    for row in searches.to_pylist():
        s = sums[row["arm"]][row["user_id"]]
        s[0] += row["outcome"] == "changed_unsatisfied"
        s[1] += 1
    draws, naive = [], 0.0
    for of_users in sums.values():
        s = np.array(list(of_users.values()))
        weights = rng.multinomial(len(s), np.full(len(s), 1 / len(s)), size=1000)
        above, below = (weights @ s).T
        draws.append(np.log(above / below))
        rate = s[:, 0].sum() / s[:, 1].sum()
        naive += (1 - rate) / rate / s[:, 1].sum()
    bootstrap = float((draws[1] - draws[0]).std(ddof=1))
    assert error == pytest.approx(bootstrap, rel=0.08)
    assert math.sqrt(naive) < 0.85 * bootstrap  # searches as independent rows would be told apart


def test_intervals_cover_and_non_inferiority_errs_at_its_level(simulate):
    rng, runs = np.random.default_rng(3), 160
    covered, wrong = np.zeros(2), 0
    for _ in range(runs):
        # The true change is -20 % for every user, hence for both kinds of mean; give-up sits on its margin.
        result = read_launch("x", simulate(rng, 500, change=0.8, despair=1.25), give_up_margin=0.25)
        covered += [e.ci_low < -0.2 < e.ci_high for e in (result.cqr, result.cqr_overall)]
        wrong += result.give_up_non_inferior
    assert ((covered / runs > 0.91) & (covered / runs < 0.985)).all(), covered / runs
    assert wrong / runs < 0.055  # 2.5 % expected
    shown = [read_launch("x", simulate(rng, 3000), give_up_margin=0.25).give_up_non_inferior for _ in range(10)]
    assert sum(shown) >= 7  # and where nothing rises, it is


@pytest.mark.parametrize(("users", "share"), [(300, 0.5), (300, 0.2), (3000, 0.5), (3000, 0.2)])
def test_sample_ratio_against_scipy(simulate, users, share):
    searches = simulate(np.random.default_rng(users), users, share=share)
    result = read_launch("x", searches, share=share)
    in_treatment = dict(zip(searches["user_id"].to_pylist(), searches["arm"].to_pylist(), strict=True))
    shown = searches.filter(searches["impacted"])["user_id"].unique().to_pylist()
    for names, p_value in ((in_treatment, result.srm_p_value), (shown, result.srm_triggered_p_value)):
        n, k = len(names), sum(in_treatment[u] == "treatment" for u in names)
        if n < 1000:
            wanted = stats.binomtest(k, n, share).pvalue
        else:  # chi-square with Yates's correction
            expected = np.array([n * share, n * (1 - share)])
            gap = np.abs([k - expected[0], n - k - expected[1]]) - 0.5
            wanted = stats.chi2.sf((gap**2 / expected).sum(), 1)
        assert p_value == pytest.approx(wanted)


def test_sample_ratio_of_impacted_users_counts_the_censored():
    """Who is triggered is settled before the outcome: 40 against 40, though only 8 and 40 have one."""
    rows = [(f"{arm}{k}", 1.0, OUTCOMES[k % 3], True, 0.0, 0.0) for arm in "ct" for k in range(40)]
    rows[8:40] = [(*row[:2], "censored", *row[3:]) for row in rows[8:40]]
    result = read_launch("x", table(rows))
    assert (result.cqr.n_control, result.cqr.n_treatment) == (8, 40)
    assert result.srm_triggered_p_value == 1.0 and result.impacted_users == 80


def test_verdict(simulate):
    good = read_launch("good", simulate(np.random.default_rng(4), 6000, change=0.6), give_up_margin=0.2)
    assert good.counts and good.reason.startswith("Counts") and good.cqr.ci_high < 0
    none = read_launch("none", simulate(np.random.default_rng(5), 6000), give_up_margin=0.3)
    assert not none.counts and "not shown to fall" in none.reason and "non-inferior" not in none.reason
    despair = read_launch("despair", simulate(np.random.default_rng(6), 6000, change=0.6, despair=1.6))
    assert despair.cqr.ci_high < 0 and not despair.counts and "non-inferior" in despair.reason
    unfair = read_launch("unfair", simulate(np.random.default_rng(4), 6000, change=0.6, share=0.4), give_up_margin=0.2)
    assert unfair.cqr.ci_high < 0 and not unfair.counts
    assert "among all users" in unfair.reason and "among impacted users" in unfair.reason

    bound = good.give_up_upper
    assert bound == good.give_up.ci_high
    assert not replace(good, give_up_margin=bound).counts and replace(good, give_up_margin=bound + 1e-9).counts
    edge = replace(good, srm_triggered_p_value=0.001)
    assert edge.counts and not replace(edge, srm_triggered_p_value=0.000999).counts
    assert not replace(good, srm_p_value=0.0001).counts
    assert not replace(good, cqr=replace(good.cqr, ci_high=0.0)).counts
    assert not replace(good, give_up=replace(good.give_up, ci_high=NAN)).counts


def test_as_dict_is_strict_json(simulate):
    result = read_launch("x", table())
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert plain["cqr"]["treatment"] == 0.25 and plain["satisfied"]["relative"] is None
    assert plain["share_impacted"] == 0.8 and plain["counts"] is False and plain["reason"] == result.reason
    assert plain["give_up_upper"] == result.give_up_upper and plain["give_up_non_inferior"] is False


def test_undefined_metrics_are_nan_without_a_warning(recwarn):
    unknown = read_launch("x", table([(*r[:4], NAN, 0.0) for r in ROWS]))
    assert unknown.plain_cqr.n_control == 0 and math.isnan(unknown.plain_cqr.control)
    assert unknown.watch_seconds.control == 0 and math.isnan(unknown.watch_seconds.p_value)
    quiet = read_launch("x", table([r for r in ROWS if r[2] != "gave_up"] + [("t6", 1.0, "gave_up", True, 0.0, 0.0)]))
    assert quiet.give_up.control == 0 and math.isnan(quiet.give_up_upper) and "undefined" in quiet.reason
    assert not quiet.give_up_non_inferior
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_global_settings_of_tea_tasting_do_not_reach_in():
    other = {
        "equal_var": True,
        "use_t": False,
        "alternative": "less",
        "confidence_level": 0.8,
        "correction": False,
    }
    with tea_tasting.config_context(**other):
        inside = read_launch("x", table())
    assert inside.as_dict() == read_launch("x", table()).as_dict()


def test_pooled_worlds_share_user_ids(simulate):
    worlds = {f"seed-{k}": simulate(np.random.default_rng(k), 200, change=0.8) for k in (7, 8, 9)}
    with pytest.raises(ValueError, match=r"users are in both arms.*pool_tables"):
        read_launch("x", pa.concat_tables(worlds.values()))
    pooled = read_launch("x", pool_tables(worlds))
    single = [read_launch("x", world) for world in worlds.values()]
    for count in ("users", "searches", "impacted_users", "impacted_searches"):
        assert getattr(pooled, count) == sum(getattr(s, count) for s in single)
    rate = sum(s.cqr.control * s.cqr.n_control for s in single) / sum(s.cqr.n_control for s in single)
    assert pooled.cqr.control == pytest.approx(rate)
    assert pool_tables(worlds)["user_id"][0].as_py() == f"seed-7/{worlds['seed-7']['user_id'][0].as_py()}"
    for bad, message in (
        ({}, "no table"),
        ({"a/b": table()}, "'a/b'"),
        ({"a": table().drop("arm")}, "table 'a'.*'arm'"),
    ):
        with pytest.raises(ValueError, match=message):
            pool_tables(bad)


@pytest.mark.parametrize("swapped", [False, True])
def test_worlds_split_by_one_salt_are_refused(swapped):
    """Equal ids in equal arms, or in opposite ones: one coin, counted twice."""

    def world(salt, swap=False):
        arms = [assign(f"u{k}", salt) for k in range(60)]
        if swap:
            arms = ["treatment" if arm == "control" else "control" for arm in arms]
        columns = dict(zip(NAMES, zip(*([("", 1.0, "satisfied", True, 0.0, 1.0)] * 60), strict=True), strict=True))
        return pa.table(columns | {"user_id": [f"u{k}" for k in range(60)], "arm": arms})

    with pytest.raises(ValueError, match=r"'a' and 'c' share 60 user ids.*a salt of its own"):
        pool_tables({"a": world("one"), "b": world("two"), "c": world("one", swapped)})
    assert len(pool_tables({"a": world("one"), "b": world("two"), "c": world("three")})) == 180
    # Ids that the worlds do not share say nothing of their salts, nor do too few that they do.
    renamed = world("one").set_column(0, "user_id", pa.array([f"v{k}" for k in range(60)]))
    assert len(pool_tables({"a": world("one"), "b": renamed})) == 120
    assert len(pool_tables({"a": world("one"), "b": world("one").slice(0, 8)})) == 68


def changed(**columns):
    rows = table()
    for name, values in columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    return rows


N = len(ROWS)


@pytest.mark.parametrize(
    ("searches", "message"),
    [
        (table().drop("outcome"), "lack column 'outcome'"),
        (table().slice(0, 0), "no search is in arm 'control': there are none"),
        (table([r for r in ROWS if r[0][0] == "c"]), "no search is in arm 'treatment': there are 'control'"),
        (changed(impacted=[False] * N), "none of the 15 searches is impacted"),
        (
            changed(impacted=[r[0][0] == "c" for r in ROWS]),
            "arm 'treatment' has 0 users with a first impacted",
        ),
        (changed(arm=["A"] * N), "no search is in arm 'control': there are 'A'"),
        (changed(outcome=["bored"] * N), "'outcome' holds 'bored'"),
        (
            changed(arm=["control", "treatment"] + ["control"] * (N - 2)),
            "1 users are in both arms, such as 'c1'",
        ),
        (changed(plain_changed=[0.5] * N), "'plain_changed' must be 0, 1"),
        (changed(watch_seconds=[NAN] * N), "'watch_seconds' must be finite"),
        (changed(timestamp=[NAN] * N), "'timestamp' must be finite"),
        (changed(user_id=[None] + ["c1"] * (N - 1)), "'user_id' holds 1 nulls"),
        (changed(timestamp=["noon"] * N), "'timestamp' is string, must be double"),
    ],
)
def test_refused_tables(searches, message):
    with pytest.raises(ValueError, match=message):
        read_launch("x", searches)


@pytest.mark.parametrize("option", [{"alpha": 0.0}, {"alpha": 1.0}, {"share": 1.0}, {"give_up_margin": -0.1}])
def test_refused_options(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} {next(iter(option.values()))}"):
        read_launch("x", table(), **option)


def test_null_is_censored_and_other_columns_are_ignored():
    nulls = changed(plain_changed=[None if math.isnan(r[4]) else r[4] for r in ROWS])
    rows = nulls.append_column("query", pa.array(["q"] * N))
    assert read_launch("x", rows).as_dict() == read_launch("x", table()).as_dict()
