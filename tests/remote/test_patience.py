"""A call ends in its time whatever it does, and what outlasts it is not asked again until it ended."""

import threading
import time

import pytest

from corewrite.remote import OutOfTimeError, Patience


def test_a_call_that_does_not_end_is_left_and_refused_until_it_did():
    go, patience = threading.Event(), Patience("the model", 0.2)
    began = time.monotonic()
    with pytest.raises(OutOfTimeError, match=r"the model did not answer within 0\.2 s"):
        patience.call(lambda: go.wait(30))
    assert 0.15 < time.monotonic() - began < 2
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(OutOfTimeError, match="still at a call"):
            patience.call(lambda: 1)
    assert time.monotonic() - began < 1
    assert patience.stuck_seconds > 0.1
    go.set()
    time.sleep(0.05)
    assert patience.call(lambda: 2) == 2 and patience.stuck_seconds == 0


def test_answers_and_errors_pass_through_from_one_thread():
    patience, names = Patience("m", 5.0), set()

    def fail():
        names.add(threading.current_thread().name)
        raise TimeoutError("its own")

    for _ in range(3):
        with pytest.raises(TimeoutError, match="its own") as caught:
            patience.call(fail)
        assert not isinstance(caught.value, OutOfTimeError)
    assert patience.call(lambda: "x") == "x" and len(names) == 1


def test_callers_at_one_time_come_one_after_the_other_or_too_late():
    patience, seen = Patience("m", 0.3), []

    def ask(i):
        try:
            seen.append(patience.call(lambda: time.sleep(0.1) or i))
        except OutOfTimeError:
            seen.append("late")

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    began = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert time.monotonic() - began < 3
    assert 1 <= len([s for s in seen if s != "late"]) <= 3 and len(seen) == 8
