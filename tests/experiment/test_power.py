"""Users needed: against statsmodels, and against launches simulated at just that size."""

import numpy as np
import pyarrow as pa
import pytest
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import power_proportions_2indep

from corewrite.experiment import read_launch
from corewrite.experiment.ab.power import power_to_count, users_needed

OPTIONS = {"share": 0.5, "alpha": 0.05, "power": 0.8}


@pytest.mark.parametrize(("rate", "effect"), [(0.25, 0.02), (0.25, 0.05), (0.1, 0.1), (0.4, 0.03)])
@pytest.mark.parametrize("share", [0.5, 0.2, 0.95])
@pytest.mark.parametrize("power", [0.8, 0.9])
def test_users_against_statsmodels(rate, effect, share, power):
    treatment = rate * (1 - effect)
    n = users_needed(rate, treatment, share=share, alpha=0.05, power=power)
    found = power_proportions_2indep(
        treatment - rate, rate, n * share, ratio=(1 - share) / share, alpha=0.05, alternative="two-sided"
    )  # fmt: skip
    # On the log scale and not on that of differences; the two part as the effect grows.
    assert found.power == pytest.approx(power, abs=0.02)


def test_users_by_the_textbook():
    """Equal variances, (1.96 + 0.84)^2 * 4 v / effect^2, by statsmodels."""
    n = users_needed(0.3, 0.3 * 0.98, **OPTIONS)
    v = 0.5 * (0.7 / 0.3 + (1 - 0.294) / 0.294)
    half = NormalIndPower().solve_power(np.log(0.98) / np.sqrt(v), alpha=0.025, power=0.8, alternative="smaller")
    assert n == pytest.approx(2 * half, abs=2)
    # A smaller risk, a smaller effect and a lopsided split need more.
    assert n < users_needed(0.3, 0.3 * 0.98, share=0.5, alpha=0.01, power=0.8)
    assert n < users_needed(0.3, 0.3 * 0.98, share=0.8, alpha=0.05, power=0.8)
    assert users_needed(0.3, 0.3 * 0.99, **OPTIONS) == pytest.approx(4 * n, rel=0.03)


def launch(rng, n, share, control, treatment):
    """One impacted search for each user."""
    treated = rng.random(n) < share
    rates = np.where(treated[:, None], treatment, control)
    u = rng.random(n)
    outcome = np.where(u < rates[:, 0], "changed_unsatisfied", np.where(u > 1 - rates[:, 1], "gave_up", "satisfied"))
    return pa.table(
        {
            "user_id": np.arange(n).astype(str),
            "arm": np.where(treated, "treatment", "control"),
            "timestamp": np.zeros(n),
            "outcome": outcome,
            "impacted": np.ones(n, np.bool_),
            "plain_changed": np.zeros(n),
            "watch_seconds": np.zeros(n),
        }
    )


def shares_shown(n, share, control, treatment, margin, runs):
    """By the intervals' formula for many launches at once: read_launch takes a tenth of a second for each."""
    rng = np.random.default_rng(7)
    n_t = rng.binomial(n, share, runs)
    counts = [
        rng.multinomial(m, [*rates, 1 - sum(rates)])[:, :2]
        for m, rates in ((n - n_t, control), (n_t, treatment))
    ]  # fmt: skip
    p_c, p_t = counts[0] / (n - n_t)[:, None], counts[1] / n_t[:, None]
    error = np.sqrt((1 - p_c) / p_c / (n - n_t)[:, None] + (1 - p_t) / p_t / n_t[:, None])
    high = p_t / p_c * np.exp(1.959964 * error) - 1
    return (high[:, 0] < 0).mean(), (high[:, 1] < margin).mean(), ((high[:, 0] < 0) & (high[:, 1] < margin)).mean()


@pytest.mark.parametrize(
    ("effect", "margin", "share"),
    [(0.02, 0.05, 0.5), (0.02, 0.05, 0.9), (0.1, 0.05, 0.5), (0.1, 0.05, 0.9), (0.3, 0.1, 0.5)],
)
def test_the_power_of_launches_of_the_planned_size(effect, margin, share):
    control = (0.25, 0.26)
    treatment = (0.25 * (1 - effect), 0.26)
    options = OPTIONS | {"share": share}
    cqr = users_needed(control[0], treatment[0], **options)
    give_up = users_needed(control[1], treatment[1], limit=margin, **options)
    assert shares_shown(cqr, share, control, treatment, margin, 20_000)[0] == pytest.approx(0.8, abs=0.02)
    assert shares_shown(give_up, share, control, treatment, margin, 20_000)[1] == pytest.approx(0.8, abs=0.02)
    both = power_to_count(max(cqr, give_up), control, treatment, margin=margin, share=share, alpha=0.05)
    shown = shares_shown(max(cqr, give_up), share, control, treatment, margin, 20_000)
    assert both == pytest.approx(shown[2], abs=0.02)
    assert both <= min(shown[:2]) + 0.02


def test_the_formula_is_the_readers():
    result = read_launch("x", launch(np.random.default_rng(8), 4_000, 0.5, (0.3, 0.2), (0.21, 0.2)))
    for effect in (result.cqr, result.give_up):
        p_c, p_t, n_c, n_t = effect.control, effect.treatment, effect.n_control, effect.n_treatment
        error = np.sqrt((1 - p_c) / p_c / n_c + (1 - p_t) / p_t / n_t)
        assert effect.ci_high == pytest.approx(p_t / p_c * np.exp(1.959964 * error) - 1, abs=1e-3)


@pytest.mark.parametrize(
    ("rates", "options", "message"),
    [
        ((0.2, 0.2), {}, r"0\.2 is not below 1 times control's 0\.2"),
        ((0.2, 0.22), {"limit": 0.05}, r"0\.22 is not below 1\.05 times"),
        ((0.0, 0.0), {}, "a rate of 0 leaves nothing"),
        ((0.2, 0.1), {"power": 1.0}, "power 1"),
        ((0.2, 0.1), {"share": 0.0}, "share 0"),
    ],
)
def test_refused(rates, options, message):
    with pytest.raises(ValueError, match=message):
        users_needed(*rates, **(OPTIONS | options))
