"""A model server that trickles, is silent or never ends: `score` ends in its time, and the breaker opens."""

import numpy as np
import pytest

from corewrite.relevance.backends import CircuitBreaker, KServeScorer, ScorerMismatchError, ScorerUnavailableError

pytest.importorskip("httpx")


@pytest.mark.parametrize("behave", ["silent", "trickled_headers", "trickled_body"])
@pytest.mark.parametrize("each_request", [False, True])
def test_a_call_ends_in_its_time_and_the_breaker_opens(catalogue, bad, behave, each_request):
    """With a time-out of 0.5 s a server that trickled its head had held `score` for 20 s, and no breaker ever opened."""
    with bad.hostile(getattr(bad, behave)) as server:
        model = KServeScorer(catalogue, server.url, "m", "1", timeout=0.3, each_request=each_request)
        breaker = CircuitBreaker(model, failures=2)
        for _ in range(2):
            seconds, error = bad.decision_seconds(lambda: breaker.score(["lion"], np.array([[0]])))
            assert isinstance(error, ScorerUnavailableError) and seconds < 2
        assert breaker.is_open
        model.close()


@pytest.mark.parametrize("behave", ["gigabyte", "bomb"])
def test_an_answer_without_end_is_not_read(catalogue, bad, behave):
    with bad.hostile(getattr(bad, behave)) as server:
        model = KServeScorer(catalogue, server.url, "m", "1", timeout=5, retries=0)
        seconds, error = bad.decision_seconds(lambda: model.score(["lion"], np.array([[0]])))
        assert isinstance(error, ScorerUnavailableError | ScorerMismatchError) and seconds < 4
        assert server.sent < 32 * 2**20
        model.close()
