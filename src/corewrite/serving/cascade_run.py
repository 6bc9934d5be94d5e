"""One pass of a search through the cascade, a stage at a time."""

import copy
import logging
import time
from collections.abc import Sequence

import numpy as np

from corewrite.domain import Query, SignalStatus
from corewrite.fusion import StageFusion
from corewrite.fusion.spec import STAGES
from corewrite.search import Candidates, Cascade, Rawranked, Trace
from corewrite.serving.search_result import Ranked, RecallError

_log = logging.getLogger(__name__)
_LOG_SECONDS = 60.0
_logged: dict[str, float] = {}  # when each was logged last


class CascadeRun:
    """One pass through the cascade, a stage at a time. A stage whose original signals fail leaves the order before it.

    Attributes:
        texts: The rewrites that the next stages use; none at the start.
        trace: The last stage, with all that happened; None where it did not end.
        failure: Why a stage failed; empty where none did.
    """

    def __init__(self, cascade: Cascade, query: Query, depth: int) -> None:
        """Nothing is run yet; `depth` results are wanted."""
        self._cascade, self._query, self._depth = cascade, [query.text], depth
        self.texts: tuple[str, ...] = ()
        self.trace: Trace | None = None
        self.failure = ""
        self._failed_at = ""
        self._cut = False
        self._refused: set[str] = set()
        self._candidates: Candidates | None = None
        self._rawranked: Rawranked | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """The stage whose original signals failed, and those after it."""
        return STAGES[STAGES.index(self._failed_at) :] if self._failed_at else ()

    def cut(self) -> "CascadeRun":
        """The pass as far as it got, for an answer now; the pass itself goes no further than the stage it is at.

        Raises:
            RecallError: it has no candidates yet.
        """
        so_far = copy.copy(self)
        self._cut = True
        if so_far._candidates is None:
            raise RecallError("nothing could be recalled within the time of a search (deadlines.search)")
        if not so_far._failed_at and so_far.trace is None:
            so_far._failed_at = "rawrank" if so_far._rawranked is None else "finerank"
            so_far.failure = "not within the time of a search"
            _log_once(f"{so_far._failed_at} was not over within deadlines.search, answered by the stage before", "late")
        return so_far

    def prepare(self) -> None:
        """Recall by the query alone, which the cascade remembers."""
        try:
            self._cascade.recall(self._query, self._cascade.spec.recall.original_candidates)
        except Exception as error:
            raise _nothing_recalled(error) from error

    def do(self, stages: tuple[str, ...], began: float) -> dict[str, float]:
        """Run stages; when each ended, seconds after `began`."""
        ends = {}
        for stage in stages:
            if self._cut:
                break
            if not self._failed_at:
                try:
                    self._with_or_without(stage)
                except Exception as error:
                    # A relevance model that is down must not take the search with it: the stage before has an order too.
                    if stage == "recall":
                        raise _nothing_recalled(error) from error
                    self._failed_at, self.failure = stage, f"{type(error).__name__}: {error}"
                    # A model server's own words may repeat the query: they are for the debug log.
                    _log_once(f"{stage} failed ({type(error).__name__}), answered by the stage before", stage)
                    _log.debug("%s failed: %s", stage, self.failure)
            ends[stage] = time.monotonic() - began
        return ends

    def ranked(self) -> Ranked:
        """The answer of the last stage that worked."""
        status: dict[str, SignalStatus] = {}
        stages = {
            "rawrank": None if self._rawranked is None else self._rawranked.stage,
            "finerank": None if self.trace is None else self.trace.finerank,
        }
        for name, stage in stages.items():
            if stage is not None:
                refused = name in self._refused
                states = stage.fusion.status.items()
                status |= {f"{name}.{signal}": SignalStatus.ERROR if refused else state[0] for signal, state in states}
        if "recall" in self._refused:
            status["recall.candidates"] = SignalStatus.ERROR
        if self._failed_at:
            status[f"{self._failed_at}.original"] = SignalStatus.ERROR
        if self.trace is not None:
            columns, last = self.trace.order[0], self.trace.finerank
        elif self._rawranked is not None:
            last = self._rawranked.stage
            columns = np.lexsort((last.rows[0], -last.fusion.log_score[0]))
        else:
            assert self._candidates is not None
            rows = tuple(int(r) for r in self._candidates.rows[0] if r >= 0)[: self._depth]
            return Ranked(rows, (0.0,) * len(rows), ({},) * len(rows), status)
        head = [int(c) for c in columns if last.rows[0, c] >= 0][: self._depth]
        rows = tuple(int(last.rows[0, c]) for c in head)
        scores = tuple(float(last.fusion.score[0, c]) for c in head)
        return Ranked(rows, scores, _factors(last.fusion, head), status)

    def _with_or_without(self, stage: str) -> None:
        try:
            self._stage(stage, self.texts)
        except Exception:
            if not self.texts:
                raise
            self._stage(stage, ())
            self._refused.add(stage)

    def _stage(self, stage: str, texts: tuple[str, ...]) -> None:
        rewrites = [texts or None]
        if stage == "recall":
            self._candidates = self._cascade.candidates(self._query, rewrites)
        elif stage == "rawrank":
            assert self._candidates is not None
            self._rawranked = self._cascade.rawrank(self._query, rewrites, self._candidates)
        else:
            assert self._rawranked is not None
            self.trace = self._cascade.finerank(self._query, rewrites, self._rawranked)


def _factors(fusion: StageFusion, columns: Sequence[int]) -> tuple[dict[str, float], ...]:
    """`explain_stage` of several documents of one search at once: every search and every counterfactual answer needs it."""
    named = {f"original.{name}": v for name, v in fusion.original_factors.items()}
    named |= {f"rewrite.{name}": v for name, v in fusion.rewrite_factors.items()}
    values = {name: np.broadcast_to(v, fusion.log_score.shape)[0, columns].tolist() for name, v in named.items()}
    return tuple({name: v[i] for name, v in values.items()} for i in range(len(columns)))


def _nothing_recalled(error: Exception) -> RecallError:
    return RecallError(f"nothing could be recalled: {type(error).__name__}")


def _log_once(text: str, about: str) -> None:
    """Log an error, at most one line a minute about the same: what is down fails every search."""
    if time.monotonic() - _logged.get(about, float("-inf")) > _LOG_SECONDS:
        _logged[about] = time.monotonic()
        _log.error("%s", text)
