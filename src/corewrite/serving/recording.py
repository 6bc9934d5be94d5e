"""The log entry of a search, made after the answer: what was served, what was compared, what the shadow version answers."""

import asyncio
import logging
from dataclasses import dataclass

from corewrite.domain import Documents, hash_share
from corewrite.domain.traffic_split import Arm, assign_bucket, is_compared
from corewrite.logs.sealing import Sealer
from corewrite.logs.served import LogPlace
from corewrite.serving.comparing import ComparedSide, Comparison, compare_sides
from corewrite.serving.log_line import Compared, Hasher, build_line
from corewrite.serving.metrics import Metrics
from corewrite.serving.ranking_thread import RankingThread
from corewrite.serving.search_result import SearchResult
from corewrite.serving.searching import Searcher
from corewrite.serving.settings import ServeConfig
from corewrite.serving.ubi_log import UbiLog
from corewrite.serving.versions import RoutingDecision

_log = logging.getLogger(__name__)
_WAITING = 1_000
"""Entries that may be in the making at a time; more are counted and dropped."""


@dataclass(frozen=True)
class LoggedRequest:
    """What the log entry of a search needs of its request.

    Attributes:
        query_id: Of the search.
        client_id: Of the user, or a name made up for this search alone.
        session_id: As the request has it.
        timestamp: Seconds since the epoch.
        depth: Results asked for.
    """

    query_id: str
    client_id: str
    session_id: str
    timestamp: float
    depth: int


class SearchRecorder:
    """Makes log entries beside the searches that follow; a failure costs an entry, which is counted, never a search."""

    def __init__(
        self,
        config: ServeConfig,
        documents: Documents,
        searcher: Searcher,
        thread: RankingThread,
        metrics: Metrics,
        log: UbiLog,
        hasher: Hasher,
        sealer: Sealer | None,
    ) -> None:
        """Record into `log`; `sealer` is needed where the settings say that texts are sealed."""
        self._config, self._documents, self._metrics = config, documents, metrics
        self._searcher, self._thread = searcher, thread
        self._ubi, self._hasher, self._sealer = log, hasher, sealer
        self._tasks: set[asyncio.Task[None]] = set()

    async def drain(self) -> None:
        """Wait for the entries in the making."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def plan_comparison(self, chosen: RoutingDecision, client: str, arm: Arm) -> Comparison | None:
        """What is compared for a client; None where the client is on neither side, or not sampled."""
        settings = self._config.log
        if not is_compared(client, settings.counterfactual_share):
            return None
        if chosen.rollout is not None and settings.pair is None:
            if chosen.rollout_pair is None:
                return None
            before, champion = chosen.rollout_pair
            versions = before.champion.version, champion.champion.version
            return Comparison(versions, (ComparedSide(before, arm), ComparedSide(champion, arm)))
        pair = self._config.pair
        if arm not in pair:
            return None
        return Comparison(pair, (ComparedSide(chosen.version, pair[0]), ComparedSide(chosen.version, pair[1])))

    def samples_shadow(self, query_id: str) -> bool:
        """Whether a search is among those whose shadow answer is computed."""
        return hash_share(query_id, "counterfactual") < self._config.log.counterfactual_share

    def record(self, found: SearchResult, request: LoggedRequest, comparison: Comparison | None, shadowed: bool) -> None:
        """Make the entry of a search, soon.

        Args:
            found: The search.
            request: What it was asked with.
            comparison: What is compared; None: nothing.
            shadowed: Whether the shadow version's answer is computed, where there is one.
        """
        place = self._ubi.next_place()
        if len(self._tasks) >= _WAITING:
            self._ubi.dropped += 1
            return
        task = asyncio.create_task(self._write(found, request, comparison, shadowed, place))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(
        self, found: SearchResult, request: LoggedRequest, comparison: Comparison | None, shadowed: bool, place: LogPlace
    ) -> None:
        compared: Compared | None = None
        shadow: SearchResult | None = None
        try:
            if comparison is not None:
                lists = await compare_sides(self._thread, found, comparison, request.depth)
                compared = Compared(comparison.pair, lists)
                if lists is not None:
                    self._metrics.counterfactuals.labels(str(lists[0] != lists[1]).lower()).inc()
            if shadowed:
                shadow = await self._searcher.shadow_answer(found, request.depth)
            if shadow is not None:
                self._metrics.rollout_searches.labels("shadow").inc()
            line = build_line(
                found,
                query_id=request.query_id,
                client_id=request.client_id,
                bucket=assign_bucket(request.client_id),
                session_id=request.session_id,
                timestamp=request.timestamp,
                ids=self._documents.id_at,
                compared=compared,
                shadow=shadow,
                backends=found.version.ranker.facts,
                texts=self._config.log.texts,
                sealer=self._sealer,
                hasher=self._hasher,
                place=place,
            )
        except Exception:
            # The search was answered; its entry must not be what brings a worker down.
            _log.exception("an entry of the log could not be made")
            self._ubi.dropped += 1
            return
        self._ubi.put(line)
