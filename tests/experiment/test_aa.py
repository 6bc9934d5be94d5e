import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from corewrite.domain import keyed_uniform, text_key
from corewrite.experiment import aa_check, read_launch
from corewrite.experiment.ab.aa import welch_p_values


def test_welch_equals_scipy():
    rng = np.random.default_rng(0)
    values, treated = 1e6 + rng.exponential(5.0, 400), rng.random((20, 400)) < 0.3
    wanted = [stats.ttest_ind(values[t], values[~t], equal_var=False).pvalue for t in treated]
    np.testing.assert_allclose(welch_p_values(values, treated), wanted, rtol=1e-9)
    assert np.isnan(welch_p_values(np.zeros(4), np.array([[True, True, False, False]]))).all()


def test_a_split_reads_as_tea_tasting_reads_it(simulate):
    searches = simulate(np.random.default_rng(1), 2000)
    users = sorted(set(searches["user_id"].to_pylist()))
    for split in range(5):
        half = dict(zip(users, keyed_uniform(split, np.arange(len(users))) < 0.5, strict=True))
        arms = pa.array(["treatment" if half[u] else "control" for u in searches["user_id"].to_pylist()])
        launch = read_launch("a/a", searches.set_column(searches.column_names.index("arm"), "arm", arms))
        first = {}
        for row in searches.sort_by("timestamp").to_pylist():
            if row["impacted"]:
                first.setdefault(row["user_id"], row["outcome"] == "changed_unsatisfied")
        values, treated = np.array(list(first.values()), float), np.array([[half[u] for u in first]])
        assert launch.cqr.p_value == pytest.approx(float(welch_p_values(values, treated)[0]), abs=1e-9, rel=1e-9)


def test_null_data_are_called_significant_one_time_in_twenty(simulate):
    searches = simulate(np.random.default_rng(2), 10_000)
    check = aa_check(searches, splits=500, seed=11)
    assert 0.025 <= check.share_significant <= 0.075
    assert check.low <= 0.05 <= check.high and check.splits == 500 and check.uniform_p_value > 0.01
    interval = stats.beta.ppf([0.025, 0.975], [(k := check.share_significant * 500), k + 1], [501 - k, 500 - k])
    assert (check.low, check.high) == pytest.approx(tuple(interval))  # Clopper & Pearson 1934

    shuffled = searches.take(np.random.default_rng(3).permutation(len(searches)))
    only_control = shuffled.filter(np.array(shuffled["arm"].to_pylist()) == "control")
    assert aa_check(only_control, splits=500, seed=11) == check
    assert aa_check(searches, splits=500, seed=12) != check

    # The data have what it takes to fail: their searches read as independent rows would give far too many.
    rows = np.array(only_control["outcome"].to_pylist()) == "changed_unsatisfied"
    keys = np.array([text_key(u) for u in only_control["user_id"].to_pylist()], np.uint64)
    p_values = welch_p_values(rows.astype(float), keyed_uniform(4, np.arange(300)[:, None], keys) < 0.5)
    assert (p_values < 0.05).mean() > 0.09


def test_refused(simulate):
    searches = simulate(np.random.default_rng(5), 200)
    with pytest.raises(ValueError, match="splits 0"):
        aa_check(searches, splits=0, seed=1)
    with pytest.raises(ValueError, match=r"arm 'control' has \d+ users .* at least 40"):
        aa_check(simulate(np.random.default_rng(5), 50), seed=1)
    satisfied = pa.array(["satisfied"] * len(searches))
    with pytest.raises(ValueError, match="change-query rate of arm 'control' is 0"):
        aa_check(searches.set_column(searches.column_names.index("outcome"), "outcome", satisfied), seed=1)
