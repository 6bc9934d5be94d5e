import numpy as np
import pytest

from corewrite.evaluation.conversations.estimates import (
    ConversationBootstrap,
    ConversationEstimate,
    ResampledFigure,
    best,
    share_of_way,
)


def test_an_interval_is_that_of_means_over_conversations():
    """Equal turns within a conversation: the standard error of the mean is that of as many values as conversations."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=200)
    conversations = [str(i) for i in range(200) for _ in range(5)]
    (figure,) = ConversationBootstrap(conversations).means({"x": np.repeat(values, 5)}, np.ones(1000, bool)).values()
    estimate, error = figure.estimate(), values.std() / np.sqrt(200)
    assert estimate.value == pytest.approx(values.mean(), abs=1e-12)
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.12 * error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.12 * error)


def test_figures_are_paired_and_of_their_part():
    conversations = ["a", "a", "b", "c", "d", "e", "f", "g"]
    part = np.array([True] * 7 + [False])
    x = np.arange(8.0)
    found = ConversationBootstrap(conversations, seed=4).means({"x": x, "y": x + 1}, part)
    assert found["x"].value == 3.0
    both = np.isfinite(found["x"].drawn)
    assert np.allclose((found["y"].drawn - found["x"].drawn)[both], 1)
    again = ConversationBootstrap(conversations, seed=4).means({"x": x}, part)["x"]
    assert np.array_equal(again.drawn, found["x"].drawn, equal_nan=True)


def test_what_resamples_cannot_say_has_no_interval():
    one = ConversationBootstrap(["a", "a"]).means({"x": np.array([1.0, 2.0])}, np.ones(2, bool))["x"]
    assert one.estimate() == ConversationEstimate(1.5, None, None)
    # A collection of one conversation among twenty is drawn in 63 % of the resamples only.
    many = ConversationBootstrap([str(i) for i in range(20)])
    of_one = many.means({"x": np.ones(20)}, np.arange(20) == 3)["x"]
    assert of_one.estimate() == ConversationEstimate(1.0, None, None)
    assert many.means({"x": np.ones(20)}, np.ones(20, bool))["x"].estimate() == ConversationEstimate(1.0, 1.0, 1.0)


def figure(value, *drawn):
    return ResampledFigure(value, np.array(drawn))


def test_shares_of_a_way():
    share = share_of_way(figure(0.5, 0.5, 0.4), figure(0.4, 0.4, 0.4), figure(0.6, 0.8, 0.8))
    assert share.value == pytest.approx(0.5) and share.drawn == pytest.approx([0.25, 0.0])
    no_way = share_of_way(figure(0.5, 0.5), figure(0.4, 0.4), figure(0.4, 0.3))
    assert no_way.estimate() == ConversationEstimate(None, None, None)
    assert best([figure(0.2, 0.1, 0.9), figure(0.3, 0.3, 0.2)]).drawn.tolist() == [0.3, 0.9]
