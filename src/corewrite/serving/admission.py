"""How many searches are worked on at a time: as many as keep the wait for the ranking short.

The idea is CoDel's (Nichols and Jacobson, "Controlling queue delay", ACM Queue 10(5), 2012; RFC 8289): what says that a queue
stands is the least time that anybody waited in it during an interval, whatever its length; a burst leaves a moment in which
somebody waited little, a standing queue does not. CoDel then drops packets, whose senders slow down. Who searches does not, and
a search that is refused has to cost as little as possible, so the control is on arrival: a limit of searches in flight, which
by Little's law grows with the wait in proportion, follows target / least wait after every interval (as the limits of
"concurrency-limits", Netflix 2018, follow latency).
"""

INTERVAL_SECONDS = 0.1
"""CoDel's: longer than a burst."""
LEAST = 6
"""Searches that are always let in, so that the ranking has work whatever else makes them wait."""
SAMPLES = 10
"""Of so few nothing is said: the least of them would be what is usual, and a limit that is low would make itself lower."""
_FIRST = 32
"""A burst that is let in before anything is known, and again when an overload is over."""
_UP, _DOWN = 1.25, 0.5


class Admission:
    """The searches of one ranking thread. Times are seconds by one clock that never goes back; nothing here reads it.

    Args:
        target: The wait from arrival to the beginning of the ranking that is aimed at, seconds.
        most: In flight at a time, whatever the wait.

    Attributes:
        limit: Searches in flight at a time, at present.
        in_flight: Let in and not yet ended.
    """

    def __init__(self, target: float, most: int) -> None:
        self.target, self._most = target, max(LEAST, most)
        self.limit, self.in_flight = float(min(_FIRST, self._most)), 0
        self._since = float("-inf")
        self._least, self._samples, self._refused = float("inf"), 0, False

    @property
    def is_full(self) -> bool:
        """Whether as many are in flight as may be."""
        return self.in_flight + 1 > self.limit

    def refuses(self, now: float) -> bool:
        """Whether a search that comes now is rejected."""
        self._adapt(now)
        self._refused = self._refused or self.is_full
        return self.is_full

    def admit(self, now: float) -> bool:
        """Whether a search that comes now is let in; each that is has to be `ended`."""
        if self.refuses(now):
            return False
        self.in_flight += 1
        return True

    def began(self, waited: float, now: float) -> None:
        """A search had its first turn in the ranking, having waited for so long."""
        self._adapt(now)
        self._least, self._samples = min(self._least, waited), self._samples + 1

    def ended(self) -> None:
        """A search is answered, or never will be."""
        self.in_flight -= 1

    def _adapt(self, now: float) -> None:
        """At the end of an interval, follow what was seen in it."""
        if now - self._since < INTERVAL_SECONDS or self._samples < SAMPLES:
            return
        # Where no search was refused nothing is known of higher limits: the limit returns to the first one, for bursts.
        most = self._most if self._refused else min(self._most, max(_FIRST, self.limit))
        if self._least > self.target or self.limit < most:
            ratio = self.target / max(self._least, 1e-6)
            self.limit = min(most, max(LEAST, self.limit * min(_UP, max(_DOWN, ratio))))
        self._since, self._least, self._samples, self._refused = now, float("inf"), 0, False
