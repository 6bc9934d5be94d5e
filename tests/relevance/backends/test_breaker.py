"""The breaker with a clock of the test's: when the model behind is asked, and when not."""

import logging
import threading

import numpy as np
import pytest

from corewrite.relevance.backends import CircuitBreaker, NaNOnFailure, ScoreError, ScorerMismatchError, ScorerUnavailableError

ROWS = np.array([[0, 1]])


class Model:
    """Fails while `error` is set; `calls` counts."""

    model_hash = "m"

    def __init__(self, error=None):
        self.error, self.calls = error, 0
        self.gate = None

    def score(self, texts, rows):
        self.calls += 1
        if self.gate is not None:
            self.gate.wait(5)
        if self.error is not None:
            raise self.error
        return np.full(rows.shape, 0.5)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def down():
    return ScorerUnavailableError("late")


def fails(breaker, error=ScorerUnavailableError):
    with pytest.raises(error):
        breaker.score(["t"], ROWS)


def broken(clock, **settings):
    model = Model(down())
    breaker = CircuitBreaker(model, clock=clock, **settings)
    for _ in range(3):
        assert not breaker.is_open
        fails(breaker)
    assert breaker.is_open and model.calls == 3
    return model, breaker


def test_after_three_failures_in_a_row_the_model_is_asked_once_after_each_growing_pause(clock):
    model, breaker = broken(clock, pause=1.0, longest=5.0)
    asked = []
    for tick in range(1, 300):  # of a tenth of a second
        clock.now = 100.0 + tick / 10
        before = model.calls
        for _ in range(4):
            fails(breaker)
        if model.calls > before:
            assert model.calls == before + 1
            asked.append(round(tick / 10, 1))
    assert asked == [1.0, 3.0, 7.0, 12.0, 17.0, 22.0, 27.0]  # pauses of 1, 2, 4, 5, 5, 5, 5
    assert breaker.refused == 4 * 299 - 7 and breaker.opened == 8


def test_an_answer_closes_it_and_the_pauses_begin_anew(clock):
    model, breaker = broken(clock, pause=1.0, longest=60.0)
    clock.now += 1
    fails(breaker)  # the next pause is 2 s
    clock.now += 2
    model.error = None
    assert breaker.score(["t"], ROWS).tolist() == [[0.5, 0.5]] and not breaker.is_open
    model.error = down()
    for _ in range(3):
        fails(breaker)
    clock.now += 0.99
    before = model.calls
    fails(breaker)
    clock.now += 0.02
    fails(breaker)
    assert model.calls == before + 1


def test_failures_count_only_in_a_row_and_a_bad_score_is_an_answer(clock):
    model = Model()
    breaker = CircuitBreaker(model, clock=clock)
    for sign_of_life in (None, ScoreError("NaN")):
        for error in (down(), ScorerMismatchError("version 2"), sign_of_life) * 4:
            model.error = error
            if error is None:
                breaker.score(["t"], ROWS)
            else:
                fails(breaker, type(error))
    assert not breaker.is_open and model.calls == 24
    model, breaker = broken(clock)
    clock.now += 1
    model.error = ScoreError("NaN")
    fails(breaker, ScoreError)
    assert not breaker.is_open


def test_a_call_that_asks_nothing_is_no_sign_of_life(clock):
    model, breaker = broken(clock)
    model.error = None
    breaker.score(["t"], np.array([[-1]]))
    assert breaker.is_open


def test_a_bug_in_the_trial_neither_closes_it_nor_blocks_the_next_trial(clock):
    model, breaker = broken(clock)
    clock.now += 1
    model.error = ZeroDivisionError()
    fails(breaker, ZeroDivisionError)
    assert breaker.is_open
    model.error = None
    breaker.score(["t"], ROWS)
    assert not breaker.is_open


def test_of_many_threads_one_tries_and_the_others_do_not_wait(clock):
    model, breaker = broken(clock)
    clock.now += 1
    model.error, model.gate = None, threading.Event()
    outcomes = []

    def call():
        try:
            outcomes.append(breaker.score(["t"], ROWS)[0, 0])
        except ScorerUnavailableError:
            outcomes.append(None)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(500):
        if len(outcomes) == 7:
            break
        threading.Event().wait(0.01)
    assert outcomes == [None] * 7 and model.calls == 4
    model.gate.set()
    for thread in threads:
        thread.join(5)
    assert outcomes[7] == 0.5 and not breaker.is_open


def test_a_failure_of_a_call_begun_before_does_not_lengthen_the_pause(clock):
    model = Model(down())
    breaker = CircuitBreaker(model, clock=clock)
    model.gate = threading.Event()
    old = [threading.Thread(target=lambda: fails(breaker)) for _ in range(5)]
    for thread in old:
        thread.start()
    model.gate.set()
    for thread in old:
        thread.join(5)
    assert breaker.opened == 1


def test_within_nan_on_failure_an_open_one_costs_nothing_and_every_change_is_one_line(clock, caplog):
    caplog.set_level(logging.INFO, "corewrite")
    model = Model(down())
    breaker = CircuitBreaker(model, clock=clock)
    scorer = NaNOnFailure(breaker)
    assert scorer.model_hash == "m"
    for _ in range(20):
        assert np.isnan(scorer.score(["t"], ROWS)).all()
    assert model.calls == 3 and scorer.failures == 20
    clock.now += 1
    assert np.isnan(scorer.score(["t"], ROWS)).all()
    clock.now += 2
    model.error = None
    assert scorer.score(["t"], ROWS).tolist() == [[0.5, 0.5]]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "INFO", "ERROR", "INFO", "WARNING"]
    assert "3 times in a row (ScorerUnavailableError), not asked for 1.0 s" in caplog.records[0].message
    assert "4 times in a row (ScorerUnavailableError), not asked for 2.0 s" in caplog.records[2].message
    assert "late" not in caplog.text, "a server's words may repeat what users typed"


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"pause": 0.0}, {"pause": 2.0, "longest": 1.0}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="must be above 0"):
        CircuitBreaker(Model(), **wrong)
