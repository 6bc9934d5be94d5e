"""Scoring a phase: calls of fixed size and sorted order, tries again, deadline, workers."""

import subprocess
import sys
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from corewrite.relevance.backends import ScoreError
from corewrite.training import ScoringConfig, TransientRewardError, retried, score_texts
from corewrite.training.scoring import time as scoring_time

TEXTS = ["dog", "cat", "a", "dog", "bird song"]


def value(x, text):
    """A number of its own for every instance and text."""
    return float(len(text)) + int(x.instance_id[1:]) / 100


class Calls:
    """A reward that notes what it is asked, [(instance id, text)] per call."""

    def __init__(self, fault=lambda asked: None):
        self.asked, self.fault, self.lock = [], fault, threading.Lock()

    def __call__(self, instances, texts):
        asked = [(x.instance_id, t) for x, row in zip(instances, texts, strict=True) for t in row]
        with self.lock:
            self.asked.append(asked)
        self.fault(asked)
        return [np.array([value(x, t) for t in row]) for x, row in zip(instances, texts, strict=True)]


@pytest.fixture
def some(instances):
    return instances[:7]


@pytest.fixture
def texts(some):
    return [TEXTS[: 1 + i % 5] for i in range(len(some))]


@pytest.fixture
def pauses(monkeypatch):
    """No real waiting: the pauses asked for."""
    found = []
    monkeypatch.setattr(scoring_time, "sleep", found.append)
    return found


def expected(some, texts):
    return {(x.instance_id, t): value(x, t) for x, row in zip(some, texts, strict=True) for t in row}


def test_calls_are_sorted_and_of_one_size(some, texts):
    keys = sorted(expected(some, texts))
    assert len(keys) == 16  # of 18 texts, "dog" twice in two rows
    seen = []
    for order in (slice(None), slice(None, None, -1)):
        reward = Calls()
        scores = score_texts(some[order], [row[::-1] for row in texts[order]], reward, ScoringConfig(batch=5))
        assert [len(call) for call in reward.asked] == [5, 5, 5, 1]
        assert [key for call in reward.asked for key in call] == keys
        assert (scores.values, scores.lost, scores.calls, scores.retries) == (expected(some, texts), {}, 4, 0)
        seen.append(reward.asked)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("workers", [2, 5, 50])
def test_workers_change_nothing(some, texts, workers):
    def slow_at_first(asked):
        if asked[0] == min(expected(some, texts)):
            time.sleep(0.05)  # the first call ends last

    reward = Calls(slow_at_first)
    scores = score_texts(some, texts, reward, ScoringConfig(batch=3, workers=workers))
    alone = Calls()
    assert scores == score_texts(some, texts, alone, ScoringConfig(batch=3))
    assert sorted(reward.asked) == alone.asked and scores.values == expected(some, texts)


def test_workers_work_at_the_same_time(some, texts):
    together = threading.Barrier(3, timeout=10)
    scores = score_texts(some, texts, Calls(lambda asked: together.wait()), ScoringConfig(batch=6, workers=3))
    assert scores.values == expected(some, texts)


@pytest.mark.parametrize("error", [TransientRewardError("busy"), ConnectionError("reset"), TimeoutError("slow")])
@pytest.mark.parametrize("workers", [1, 3])
def test_what_may_pass_is_tried_again(some, texts, pauses, error, workers):
    failures = {0: 3, 2: 1}  # of the calls by their first key, so many times
    first = {sorted(expected(some, texts))[5 * i]: n for i, n in failures.items()}

    def fault(asked):
        if first.get(asked[0], 0) > 0:
            first[asked[0]] -= 1
            raise error

    reward = Calls(fault)
    scores = score_texts(some, texts, reward, ScoringConfig(batch=5, workers=workers, retries=3))
    assert (scores.values, scores.lost, scores.calls, scores.retries) == (expected(some, texts), {}, 8, 4)
    assert sorted(pauses) == [1, 1, 2, 4]
    assert len(reward.asked) == 8


def test_pauses_grow(some, texts, pauses):
    def fault(asked):
        raise TransientRewardError("busy")

    score_texts(some[:1], texts[:1], Calls(fault), ScoringConfig(retries=4))
    assert pauses == [1, 2, 4, 8]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("retries", [0, 2])
def test_what_does_not_pass_loses_its_instances(some, texts, pauses, workers, retries):
    broken = sorted(expected(some, texts))[5]  # first key of the second call

    def fault(asked):
        if broken in asked:
            raise TransientRewardError("out of memory")

    reward = Calls(fault)
    scores = score_texts(some, texts, reward, ScoringConfig(batch=5, workers=workers, retries=retries))
    call = sorted(expected(some, texts))[5:10]
    assert scores.lost == {instance: "TransientRewardError: out of memory" for instance, _ in call}
    assert scores.values == {k: v for k, v in expected(some, texts).items() if k not in call}
    assert (scores.calls, scores.retries, len(pauses)) == (4 + retries, retries, retries)


@pytest.mark.parametrize("workers", [1, 3])
def test_other_errors_are_raised_at_once(some, texts, pauses, workers):
    def fault(asked):
        raise ValueError("no such document")

    reward = Calls(fault)
    with pytest.raises(ValueError, match="no such document"):
        score_texts(some, texts, reward, ScoringConfig(batch=5, workers=workers, retries=9))
    assert pauses == [] and (workers > 1 or len(reward.asked) == 1)


def test_an_error_stops_the_other_workers(some, texts):
    def fault(asked):
        if asked[0] == min(expected(some, texts)):
            raise ValueError("no such document")
        time.sleep(0.02)

    reward = Calls(fault)
    with pytest.raises(ValueError, match="no such document"):
        score_texts(some, texts, reward, ScoringConfig(batch=1, workers=2))
    time.sleep(0.1)
    assert len(reward.asked) <= 4


def hanging(keys, until):
    """A reward that never answers calls with one of `keys`."""

    def fault(asked):
        if not keys.isdisjoint(asked):
            until.wait(30)

    return Calls(fault)


@pytest.mark.parametrize("workers", [2, 3])
def test_what_the_deadline_cuts_off_is_lost(some, texts, workers):
    keys, until = sorted(expected(some, texts)), threading.Event()
    reward, seen = hanging({keys[6]}, until), []
    begin = time.monotonic()
    scores = score_texts(
        some,
        texts,
        reward,
        ScoringConfig(batch=5, workers=workers, deadline_seconds=0.4),
        progress=lambda *done: seen.append(done),
    )
    took = time.monotonic() - begin
    until.set()
    assert 0.39 < took < 1.5
    assert scores.lost == {instance: "not scored within 0.4 s" for instance, _ in keys[5:10]}
    assert scores.values == {k: v for k, v in expected(some, texts).items() if k not in keys[5:10]}
    assert seen == [(1, 4), (2, 4), (3, 4)]


def test_a_deadline_with_one_worker(some, texts):
    """What stands behind the call that hangs is lost with it."""
    keys, until = sorted(expected(some, texts)), threading.Event()
    scores = score_texts(some, texts, hanging({keys[6]}, until), ScoringConfig(batch=5, deadline_seconds=0.3))
    until.set()
    assert scores.values == {k: value(next(x for x in some if x.instance_id == k[0]), k[1]) for k in keys[:5]}
    assert scores.lost.keys() == {instance for instance, _ in keys[5:]}


def test_a_deadline_in_time_changes_nothing(some, texts):
    config = ScoringConfig(batch=5, deadline_seconds=60)
    begin = time.monotonic()
    assert score_texts(some, texts, Calls(), config) == score_texts(some, texts, Calls(), ScoringConfig(batch=5))
    assert time.monotonic() - begin < 5


def test_no_pause_beyond_the_deadline(some, texts):
    def fault(asked):
        raise ConnectionError("reset")

    begin = time.monotonic()
    scores = score_texts(some, texts, Calls(fault), ScoringConfig(batch=50, retries=9, deadline_seconds=0.5))
    assert time.monotonic() - begin < 0.5
    assert set(scores.lost.values()) == {"ConnectionError: reset"} and scores.calls == 1


HANGS = """
import threading
from corewrite.domain import Query, TrainingInstance
from corewrite.training.config import ScoringConfig
from corewrite.training.scoring import score_texts

x = TrainingInstance("q", "u", Query("cat"), ("a",), (1.0,), ("b",), (1.0,), 0.0)
found = score_texts([x], [["dog"]], lambda xs, ts: threading.Event().wait(), ScoringConfig(deadline_seconds=0.1))
print(found.lost)
"""


def test_a_call_that_hangs_does_not_hold_the_process():
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "{'q': 'not scored within 0.1 s'}\n"), done.stderr


class Flaky(Calls):
    """A reward that has no number for some texts, the first so many times that it is asked about each."""

    def __init__(self, bad, times):
        super().__init__()
        self.bad, self.times = bad, dict(times)

    def __call__(self, instances, texts):
        found = super().__call__(instances, texts)
        for x, row, values in zip(instances, texts, found, strict=True):
            for place, text in enumerate(row):
                if self.times.get((x.instance_id, text), 0) > 0:
                    self.times[x.instance_id, text] -= 1
                    values[place] = self.bad
        return found


BAD = ("q4", "bird song")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_is_tried_again(some, texts, pauses, bad, workers):
    reward = Flaky(bad, {BAD: 2, ("q4", "cat"): 1})
    scores = score_texts(some, texts, reward, ScoringConfig(batch=5, workers=workers, retries=3))
    assert (scores.values, scores.lost, scores.calls, scores.retries) == (expected(some, texts), {}, 6, 2)
    again = [call for call in reward.asked if BAD in call]
    assert len(again) == 3 and again[0] == again[1] == again[2], "the same batch, whole"
    assert pauses == [1, 2]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_in_the_end_loses_that_instance_alone(some, texts, pauses, bad, workers):
    scores = score_texts(some, texts, Flaky(bad, {BAD: 99}), ScoringConfig(batch=5, workers=workers, retries=2))
    assert scores.lost == {"q4": f"the reward of 'bird song' is {bad}"}
    assert scores.values == {k: v for k, v in expected(some, texts).items() if k != BAD}
    assert (scores.calls, scores.retries, pauses) == (6, 2, [1, 2])


def test_the_first_number_of_a_text_counts(some, texts, pauses):
    """A batch asked again gives its other texts again, in other floats where the model is that way."""
    shaken = [0.0]

    class Shaken(Flaky):
        def __call__(self, instances, texts):
            shaken[0] += 1
            return [row + shaken[0] for row in super().__call__(instances, texts)]

    scores = score_texts(some, texts, Shaken(np.nan, {BAD: 1}), ScoringConfig(batch=50))
    assert scores.values == {k: v + (2 if k == BAD else 1) for k, v in expected(some, texts).items()}


def test_no_number_and_no_time(some, texts):
    begin = time.monotonic()
    scores = score_texts(some, texts, Flaky(np.nan, {BAD: 99}), ScoringConfig(batch=50, retries=9, deadline_seconds=0.5))
    assert time.monotonic() - begin < 0.5 and scores.calls == 1
    assert scores.lost.keys() == {"q4"} and scores.values.keys() == expected(some, texts).keys() - {BAD}


@pytest.mark.parametrize("times", [1, 99])
def test_a_document_without_a_score_costs_the_instances_that_hold_it(some, texts, pauses, times):
    left = [times]

    def fault(asked):
        if any(instance == "q4" for instance, _ in asked) and left[0] > 0:
            left[0] -= len({instance for instance, _ in asked}) == 1  # alone: this is the try that counts
            raise ScoreError("the score of document 'v7' is nan, not a probability")

    scores = score_texts(some, texts, Calls(fault), ScoringConfig(batch=50, retries=2))
    if times == 1:
        assert (scores.values, scores.lost, scores.retries) == (expected(some, texts), {}, 1)
    else:
        assert scores.lost == {"q4": "ScoreError: the score of document 'v7' is nan, not a probability"}
        assert scores.values == {k: v for k, v in expected(some, texts).items() if k[0] != "q4"}


def test_retried_outside_a_phase(some, texts, pauses):
    ask = retried(Flaky(np.nan, {BAD: 99, ("q3", "cat"): 1}), ScoringConfig(batch=5, retries=1))
    for x, row, values in zip(some, texts, ask(some, texts), strict=True):
        assert values.dtype == np.float64
        for text, found in zip(row, values, strict=True):
            assert np.isnan(found) if (x.instance_id, text) == BAD else found == value(x, text)


def test_what_is_known_is_not_asked_again(some, texts):
    rest, before = sorted(expected(some, texts))[0::2], dict.fromkeys(sorted(expected(some, texts))[1::2], -1.0)
    known = before | {("elsewhere", "cat"): 9.0, ("q0", "never asked"): 9.0}
    reward = Calls()
    scores = score_texts(some, texts, reward, ScoringConfig(batch=3), known)
    assert [key for call in reward.asked for key in call] == rest
    assert scores.values == before | {k: v for k, v in expected(some, texts).items() if k in rest}
    assert scores.calls == 3
    everything = Calls()
    assert score_texts(some, texts, everything, ScoringConfig(), expected(some, texts)).values == expected(some, texts)
    assert everything.asked == []


def test_nothing_to_score(some):
    reward = Calls()
    for config in (ScoringConfig(), ScoringConfig(workers=3, deadline_seconds=5)):
        assert score_texts(some, [[] for _ in some], reward, config).values == {}
        assert score_texts([], [], reward, config).values == {}
    assert reward.asked == []


@pytest.mark.parametrize("workers", [1, 4])
def test_progress_counts_up(some, texts, workers):
    seen = []
    score_texts(some, texts, Calls(), ScoringConfig(batch=2, workers=workers), progress=lambda *done: seen.append(done))
    assert seen == [(i + 1, 8) for i in range(8)]
    assert all(a < b for a, b in pairwise(seen))


def test_a_wrong_number_of_scores(some, texts):
    with pytest.raises(ValueError, match="gave 14 numbers for 16 rewrites"):
        score_texts(some, texts, lambda xs, rows: [*Calls()(xs, rows)[:-1], np.array([])], ScoringConfig())


def test_a_wrong_number_of_scores_for_one_of_them(some, texts):
    def shifted(xs, rows):
        a, b, *rest = Calls()(xs, rows)
        return [np.append(a, b[0]), b[1:], *rest]

    with pytest.raises(ValueError, match="numbers for"):
        score_texts(some, texts, shifted, ScoringConfig())


def test_calls_begun_are_counted(some, texts):
    until = threading.Event()
    scores = score_texts(
        some, texts, hanging({min(expected(some, texts))}, until), ScoringConfig(batch=50, deadline_seconds=0.2)
    )
    until.set()
    assert scores.calls == 1
