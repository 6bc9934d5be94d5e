"""Admission, against a simulated ranking thread: searches that come, wait their turn, wait for a rewrite, and are ranked."""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.serving.admission import LEAST, Admission

TARGET = 0.05 / 6
# Seconds of the processor for one search, in the event loop and in the ranking thread, which take turns: 250 searches a second.
READ, PREPARE, RESUME, REST, ANSWER, REFUSE = 0.0004, 0.0008, 0.0001, 0.0022, 0.0005, 0.00002


@dataclass
class World:
    """One processor for an event loop and a ranking thread, each first come first served; arrivals of a Poisson process."""

    seed: int = 0
    pace: float = 1.0  # of the ranking
    rewrite: float = 0.015
    stalls: float = 0.0  # a second, of 30 ms each, as a neighbour makes them
    admission: Admission = field(default_factory=lambda: Admission(TARGET, 512))
    now: float = 0.0
    free_at: float = 0.0
    answered: list = field(default_factory=list)  # (arrival, latency)
    refused: list = field(default_factory=list)

    def __post_init__(self):
        self.draw, self.timers, self.count = random.Random(self.seed), [], 0
        self.queues, self.turn = (deque(), deque()), 0

    def run(self, rate, seconds):
        end = self.now + seconds
        self.at(self.now + self.draw.expovariate(rate), self.arrive, rate, end)
        if self.stalls:
            self.at(self.now, self.stall, end)
        while True:
            ready = max(self.now, self.free_at) if any(self.queues) else float("inf")
            timer = self.timers[0][0] if self.timers else float("inf")
            if min(ready, timer) > end:
                self.now = end
                return self
            if timer <= ready:
                self.now, _, what, arguments = heapq.heappop(self.timers)
                what(*arguments)
            else:
                self.now = ready
                self.turn = 1 - self.turn if self.queues[1 - self.turn] else self.turn
                self.free_at = self.now + self.queues[self.turn].popleft()()

    def at(self, when, what, *arguments):
        self.count += 1
        heapq.heappush(self.timers, (when, self.count, what, arguments))

    def loop(self, job):
        self.queues[0].append(job)

    def thread(self, seconds, then):
        def job():
            took = seconds * self.pace * self.draw.uniform(0.5, 1.5)
            self.at(self.now + took, then, took)
            return took

        self.queues[1].append(job)

    def stall(self, end):
        self.free_at = max(self.free_at, self.now) + 0.03
        if self.now < end:
            self.at(self.now + self.draw.expovariate(self.stalls), self.stall, end)

    def arrive(self, rate, end):
        self.loop(lambda arrived=self.now: self.read(arrived))
        following = self.now + self.draw.expovariate(rate)
        if following < end:
            self.at(following, self.arrive, rate, end)

    def read(self, arrived):
        if not self.admission.admit(self.now):
            self.refused.append(arrived)
            return REFUSE
        received = self.now
        self.at(
            self.now + READ, lambda: self.thread(PREPARE, lambda took: self.loop(lambda: self.resume(arrived, received, took)))
        )
        return READ

    def resume(self, arrived, received, took):
        self.admission.began(self.now - received - took, self.now)
        ready = max(self.now, received + self.draw.uniform(0, 2 * self.rewrite))
        self.at(ready, self.thread, REST, lambda _: self.loop(lambda: self.answer(arrived)))
        return 2 * RESUME

    def answer(self, arrived):
        self.admission.ended()
        self.answered.append((arrived, self.now + ANSWER - arrived))
        return ANSWER

    def latencies(self, since=0.0):
        return np.array([seconds for arrived, seconds in self.answered if arrived >= since])


CAPACITY = 1 / (READ + PREPARE + 2 * RESUME + REST + ANSWER)


@pytest.mark.parametrize("times", [2, 5, 20])
@pytest.mark.parametrize("seed", range(3))
def test_overload_keeps_the_wait_short_and_the_thread_busy(times, seed):
    world = World(seed).run(times * CAPACITY, 10)
    left = 1 - times * CAPACITY * REFUSE  # of the processor, when all are refused
    assert len(world.answered) / 10 > 0.96 * left * CAPACITY
    found = world.latencies(since=1.0)
    assert np.quantile(found, 0.5) < 0.08 and np.quantile(found, 0.99) < 0.12


def test_a_neighbour_who_stalls_the_processor_does_not_end_the_answers():
    busy = 0.03 * 10  # share of the time that the stalls take
    world = World(1, stalls=10).run(5 * CAPACITY, 10)
    assert len(world.answered) / 10 > 0.85 * (1 - busy) * CAPACITY


@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_refused_below_capacity_for_long(seed):
    world = World(seed).run(0.7 * CAPACITY, 30)
    assert len([at for at in world.refused if at > 2]) < 0.005 * len(world.answered)


@pytest.mark.parametrize("seed", range(3))
def test_it_recovers_at_once(seed):
    world = World(seed)
    world.run(20 * CAPACITY, 5)
    before = len(world.refused)
    world.run(0.5 * CAPACITY, 5)
    assert max(at for at in [0.0, *world.refused[before:]]) < 5.5
    assert np.quantile(world.latencies(since=5.3), 0.99) < 0.06


def test_a_ranking_that_turns_slow_is_followed_and_one_that_turns_fast_again_too():
    world = World(1).run(5 * CAPACITY, 5)
    world.pace = 10.0
    world.run(5 * CAPACITY, 10)
    assert np.quantile(world.latencies(since=6.0), 0.99) < 2 * LEAST * 10 * (PREPARE + REST)
    world.pace, fast = 1.0, world.now + 2
    world.run(5 * CAPACITY, 5)
    assert len(world.latencies(since=fast)) / 3 > 0.93 * CAPACITY


def test_a_rewriter_that_hangs_is_no_queue():
    """Searches take their whole deadline then, and nobody is refused for it."""
    world = World(2, rewrite=0.05).run(0.6 * CAPACITY, 20)
    assert len([at for at in world.refused if at > 2]) < 0.002 * len(world.answered)


steps = st.lists(st.tuples(st.sampled_from(["admit", "began", "ended"]), st.floats(0, 0.3), st.floats(0, 10)), max_size=200)


@given(steps=steps, most=st.integers(1, 40), target=st.floats(0.001, 5))
def test_whatever_happens_the_limits_hold(steps, most, target):
    admission, now, inside = Admission(target, most), 0.0, 0
    for what, later, waited in steps:
        now += later
        if what == "admit":
            before = admission.limit
            let_in = admission.admit(now)
            inside += let_in
            # What was let in at a higher limit stays; nobody is refused while fewer than LEAST are in.
            assert let_in == (inside - let_in + 1 <= admission.limit) and (let_in or inside >= LEAST)
            assert 0.49 * before <= admission.limit <= 1.26 * before
        elif what == "began":
            admission.began(waited, now)
        elif inside:
            admission.ended()
            inside -= 1
        assert admission.in_flight == inside <= max(LEAST, most)
        assert LEAST <= admission.limit <= max(LEAST, most)
