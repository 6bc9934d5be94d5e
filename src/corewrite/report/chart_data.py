"""What charts draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        name: What is estimated.
        value: The estimate.
        low, high: Ends of the interval.
    """

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """Series over phases or weeks that share a unit.

    Attributes:
        title: What is drawn, with its unit.
        series: Points (phase, value) by name; a missing value breaks the line.
    """

    title: str
    series: Mapping[str, Sequence[tuple[int, float | None]]]

    @property
    def values(self) -> list[float]:
        """Every value there is."""
        return [y for points in self.series.values() for _, y in points if y is not None]

    @property
    def drawable(self) -> bool:
        """Whether there is any value."""
        return bool(self.values)


def pad(values: Sequence[float], share: float) -> tuple[float, float]:
    """Ends of an axis: those of the values (0 and 1 without any), moved outwards by a share of their distance."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = share * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move `places` apart to at least `gap`, in the same order and within `low` to `high` where there is room for all."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for rank, i in enumerate(order):  # Up, as far as those below and the lower end ask for it.
        moved[i] = max(moved[i], low if rank == 0 else moved[order[rank - 1]] + gap)
    for rank, i in reversed(list(enumerate(order))):  # Down again from the upper end.
        moved[i] = min(moved[i], high if rank == len(order) - 1 else moved[order[rank + 1]] - gap)
    return moved
