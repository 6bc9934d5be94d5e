"""In front of an engine of one's own: time, nonsense and failures in a row."""

import threading
import time

import numpy as np
import pytest

from corewrite.remote import Patience
from corewrite.remote.breaker import Breaker
from corewrite.search.engines import EngineError, EngineUnavailableError, GuardedEngine


class Own:
    def __init__(self, answer):
        self.answer, self.asked = answer, 0

    def search_text(self, texts, k):
        self.asked += 1
        return self.answer() if callable(self.answer) else self.answer


def guarded(answer, seconds=0.2, **more):
    own = Own(answer)
    return own, GuardedEngine(own, 5, "mine", patience=Patience("mine", seconds), breaker=Breaker("mine", **more))


def test_a_good_answer_passes():
    _, engine = guarded(np.array([[4, 0, -1]]))
    assert engine.search_text(["x"], 3).tolist() == [[4, 0, -1]]


@pytest.mark.parametrize(
    "answer", [None, [[5]], [[-2]], [[0.5]], [0], [[0], [1]], [[0, 1, 2, 3]], "rows", [[float("nan")]], lambda: 1 / 0]
)
def test_nonsense_and_errors_are_engine_errors(answer):
    _, engine = guarded(answer)
    with pytest.raises(EngineError, match="mine"):
        engine.search_text(["x"], 3)


def test_one_that_hangs_costs_its_time_once_and_is_asked_again_when_it_answers():
    go = threading.Event()
    own, engine = guarded(lambda: go.wait(20) and np.array([[1]]), failures=3, pause=0.1, longest=0.1)
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(EngineUnavailableError, match="mine"):
            engine.search_text(["x"], 1)
    assert time.monotonic() - began < 3 and own.asked == 1
    go.set()
    time.sleep(0.2)
    assert engine.search_text(["x"], 1).tolist() == [[1]]
