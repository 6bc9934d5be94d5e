"""Connections by the books: what a model of them, written down the slow way, says of the same events."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from corewrite.serving.connections import (
    LEAST_CONNECTIONS,
    RESERVED_FILES,
    Connections,
    WaitingFor,
    affordable_connections,
)

MOST, GRACE = 4, 0.5
SECONDS = {WaitingFor.HEAD: 2.0, WaitingFor.BODY: 3.0, WaitingFor.READING: 1.0}


class Books(RuleBasedStateMachine):
    """Every connection with what it waits for and since when (None: it is worked for), in a plain list."""

    def __init__(self):
        super().__init__()
        self.real = Connections(MOST, SECONDS, GRACE)
        self.now, self.next, self.known, self.gone = 0.0, 0, {}, [-1]

    @rule(seconds=st.floats(0.01, 2))
    def later(self, seconds):
        self.now += seconds

    @rule()
    def opens(self):
        waiting = [c for c, (what, _) in self.known.items() if what is not None]
        expected = None
        if len(self.known) == MOST:
            waited_enough = [c for c in waiting if self.now - self.known[c][1] >= GRACE]
            expected = min(waited_enough, key=lambda c: self.known[c][1], default=self.next)
        assert self.real.opened(self.next, self.now) == expected
        self.known[self.next] = (WaitingFor.HEAD, self.now)
        if expected is not None:
            del self.known[expected]
            self.gone.append(expected)
        self.next += 1
        self.now += 0.001  # no two events at the same time

    @precondition(lambda self: self.known)
    @rule(data=st.data(), what=st.sampled_from(WaitingFor))
    def waits(self, data, what):
        c = data.draw(st.sampled_from(sorted(self.known)))
        self.real.waits(c, what, self.now)
        if self.known[c][0] is not what:
            self.known[c] = (what, self.now)
        self.now += 0.001

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def works(self, data):
        c = data.draw(st.sampled_from(sorted(self.known)))
        self.real.works(c)
        self.known[c] = (None, self.now)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def closes(self, data):
        c = data.draw(st.sampled_from(sorted(self.known)))
        self.real.closed(c)
        del self.known[c]
        self.gone.append(c)

    @rule(data=st.data())
    def what_is_gone_stays_gone(self, data):
        c = data.draw(st.sampled_from(self.gone))
        self.real.waits(c, WaitingFor.BODY, self.now)
        self.real.works(c)
        self.real.closed(c)

    @invariant()
    def agrees(self):
        assert len(self.real) == len(self.known) <= MOST
        late = {
            (c, what) for c, (what, since) in self.known.items()
            if what is not None and self.now - since > SECONDS.get(what, float("inf"))
        }  # fmt: skip
        assert set(self.real.overdue(self.now)) == late


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_connections_leave_files_for_the_rest():
    assert affordable_connections(1024, 20_000, 256) == 1024
    assert affordable_connections(1024, 1024, 128) == 1024 - RESERVED_FILES - 128
    least = RESERVED_FILES + 32 + LEAST_CONNECTIONS
    assert affordable_connections(1024, least, 32) == LEAST_CONNECTIONS
    with pytest.raises(ValueError, match=rf"may open {least - 1} files.*at least {least}"):
        affordable_connections(1024, least - 1, 32)
