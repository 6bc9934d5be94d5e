"""The figures of a measurement: rows of means, and shares of the way from the raw query to the human's rewrite."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from corewrite.evaluation.conversations.estimates import (
    ConversationBootstrap,
    ConversationEstimate,
    ResampledFigure,
    best,
    share_of_way,
)
from corewrite.evaluation.conversations.measure import MODES, Measured, Mode
from corewrite.evaluation.conversations.metrics import METRICS
from corewrite.evaluation.conversations.records import ConversationSet
from corewrite.evaluation.conversations.systems import BASELINES, CHAMPION, HUMAN, RAW, WARM_START

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ALL, BEST_BASELINE = "all", "best_baseline"
SHARE_OF = "mrr"
"""The metric that shares are of."""


@dataclass(frozen=True)
class MetricRow:
    """A metric of one system.

    Attributes:
        collection: Of the turns; `all`: every one of them.
        ranker: Which scored.
        system: Whose rewrites.
        mode: The rewrite in the place of the query, or fused with it.
        metric: One of `METRICS`.
        value: Mean over turns.
        low: Lower end of its 95 % interval.
        high: Upper end.
        turns: How many.
        conversations: Of how many conversations.
    """

    collection: str
    ranker: str
    system: str
    mode: Mode
    metric: str
    value: float | None
    low: float | None
    high: float | None
    turns: int
    conversations: int


@dataclass(frozen=True)
class ShareRow:
    """Of the way from the raw query to the human's rewrite in MRR, how much a system goes; fields as in `MetricRow`."""

    collection: str
    ranker: str
    system: str
    mode: Mode
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ConversationFigures:
    """All figures of a measurement.

    Attributes:
        rows: Means.
        shares: Shares of the way, of every system but raw and human, and of the best baseline.
    """

    rows: Sequence[MetricRow]
    shares: Sequence[ShareRow]

    def share(self, system: str, ranker: str, mode: Mode = "alone") -> ConversationEstimate | None:
        """A system's share over all turns; None where it was not measured."""
        for row in self.shares:
            if (row.collection, row.ranker, row.system, row.mode) == (ALL, ranker, system, mode):
                return ConversationEstimate(row.value, row.low, row.high)
        return None

    def main_shares(self, ranker: str) -> dict[str, ConversationEstimate | None]:
        """The three that are asked for: of the rewrite alone, over all turns."""
        return {f"share_{name}": self.share(name, ranker) for name in (WARM_START, CHAMPION, BEST_BASELINE)}


def summarise(data: ConversationSet, ranks: Mapping[Measured, IntArray], *, seed: int = 0) -> ConversationFigures:
    """Figures of each collection and of all turns together.

    Args:
        data: The turns.
        ranks: See `collect_ranks`.
        seed: Of the bootstrap.
    """
    bootstrap = ConversationBootstrap([t.conversation for t in data.turns], seed=seed)
    columns = {
        f"{a.ranker} {a.system} {a.mode} {name}": metric(r) for a, r in ranks.items() for name, metric in METRICS.items()
    }
    rows, shares = list[MetricRow](), list[ShareRow]()
    for collection, part in _parts(data).items():
        figures = bootstrap.means(columns, part)
        turns = int(part.sum())
        conversations = len({t.conversation for t, inside in zip(data.turns, part, strict=True) if inside})
        for a in ranks:
            for name in METRICS:
                estimate = figures[f"{a.ranker} {a.system} {a.mode} {name}"].estimate()
                about = (collection, a.ranker, a.system, a.mode, name)
                rows.append(MetricRow(*about, **asdict(estimate), turns=turns, conversations=conversations))
        for ranker in dict.fromkeys(a.ranker for a in ranks):
            for mode in MODES:
                of = {
                    a.system: figures[f"{ranker} {a.system} {mode} {SHARE_OF}"]
                    for a in ranks
                    if (a.ranker, a.mode) == (ranker, mode)
                }
                shares += _shares(collection, ranker, mode, of)
    return ConversationFigures(rows, shares)


def _parts(data: ConversationSet) -> dict[str, BoolArray]:
    """Which turns are of each collection, and all of them."""
    of = np.array([t.collection for t in data.turns])
    return {name: of == name for name in dict.fromkeys(of.tolist())} | {ALL: np.ones(len(of), np.bool_)}


def _shares(collection: str, ranker: str, mode: Mode, of: Mapping[str, ResampledFigure]) -> list[ShareRow]:
    if RAW not in of or HUMAN not in of:
        return []
    reached = {name: figure for name, figure in of.items() if name not in (RAW, HUMAN)}
    reached[BEST_BASELINE] = best([of[name] for name in BASELINES if name in of])
    return [
        ShareRow(collection, ranker, name, mode, **asdict(share_of_way(figure, of[RAW], of[HUMAN]).estimate()))
        for name, figure in reached.items()
    ]
