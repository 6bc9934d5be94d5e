"""Whether what was logged can be computed again: the check that serving and training rank alike."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.load import deployment_of
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.ranker import EMBEDDED_FACTS
from corewrite.domain import SignalStatus
from corewrite.fusion import ReplayResult, replay
from corewrite.fusion.spec import STAGES
from corewrite.logs.files import log_files, log_lines
from corewrite.logs.sealing import Unseal
from corewrite.logs.served import Served, ServedLine, read_served
from corewrite.registry import Registry
from corewrite.search import Cascade, Trace


class ReplayError(ValueError):
    """A log that cannot be replayed."""


@dataclass(frozen=True)
class LogReplay:
    """What replaying a log gave.

    Attributes:
        factors: Logged factors against recomputed ones.
        searches: Searches recomputed.
        same_lists: Of those, with the same documents in the same order.
        passed_over: Lines that hold no search of this server, or only hashes, or one in which the scoring failed.
        missing: Logged documents that the recomputed answer does not hold; each of their factors counts as different.
        by_factor: The same of each factor alone.
        tolerance: Largest difference of a factor that is the models' rounding.
    """

    factors: ReplayResult
    searches: int
    same_lists: int
    passed_over: int
    missing: int
    by_factor: Mapping[str, ReplayResult]
    tolerance: float


def replay_log(
    log: Path, registry: Registry, opener: RankerOpener, *, unseal: Unseal | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LogReplay:  # fmt: skip
    """Recompute the searches of a log, each with the triple, the rewrites and the stages that it names.

    Args:
        log: A file, or a folder of them.
        registry: Holds the triples.
        opener: Opens what ranked, over the documents of that time. What other models or engines answered is passed over.
        unseal: Opens sealed texts; None: such searches are passed over.
        progress: Called with (searches done, of how many).

    Raises:
        LogError: a file of the log cannot be read.
        ReplayError: nothing in the log can be recomputed.
        RegistryError: an artifact the log names is gone or damaged.
    """
    entries, passed_over = _entries(log, unseal)
    deployments: dict[tuple[str, str], Deployment] = {}
    logged: dict[str, list[float]] = defaultdict(list)
    again: dict[str, list[float]] = defaultdict(list)
    others: set[str] = set()
    searches = same = missing = 0
    documents = opener.documents
    for done, entry in enumerate(entries, 1):
        served = entry.served
        triple = served.relevance, served.spec
        if triple not in deployments:
            deployments[triple] = deployment_of(registry, opener, *triple)
        deployment = deployments[triple]
        if (served.backends or EMBEDDED_FACTS) != deployment.ranker.facts:
            passed_over += 1
            others.add(json.dumps(served.backends)[:200])
            continue
        searches += 1
        trace = _trace(deployment.cascade, entry.user_query, served)
        fusion, order, rows = trace.finerank.fusion, trace.order[0], trace.finerank.rows[0]
        ids = dict(zip(rows[rows >= 0].tolist(), documents.ids_of(rows[rows >= 0]), strict=True))
        column = {ids[int(row)]: j for j, row in enumerate(rows) if row >= 0}
        ranked = [ids[int(rows[j])] for j in order if rows[j] >= 0]
        hits = list(entry.query_response_hit_ids)
        same += ranked[: len(hits)] == hits
        missing += sum(hit not in column for hit in hits)
        found = {f"original.{n}": v for n, v in fusion.original_factors.items()}
        found |= {f"rewrite.{n}": v for n, v in fusion.rewrite_factors.items()}
        for name, values in served.factors.items():
            for hit, value in zip(hits, values, strict=True):
                logged[name].append(float(value))
                here = np.broadcast_to(found[name], trace.finerank.rows.shape) if name in found else None
                again[name].append(float(here[0, column[hit]]) if here is not None and hit in column else np.nan)
        progress(done, len(entries))
    if not searches:
        answered = f"; other models or engines answered {sorted(others)[0]}" if others else ""
        raise ReplayError(
            f"{log} holds no search that can be recomputed ({passed_over} lines passed over{answered}): texts must be logged, "
            "set log.query_text, and the ranker of the settings must be the one that answered"
        )
    both = {n: (np.array(logged[n]), np.array(again[n])) for n in logged}
    tolerance = max(d.replay_tolerance for d in deployments.values())
    result = replay({n: x for n, (x, _) in both.items()}, {n: y for n, (_, y) in both.items()})
    by_factor = {n: replay({n: x}, {n: y}) for n, (x, y) in both.items()}
    return LogReplay(result, searches, same, passed_over, missing, by_factor, tolerance)


def _trace(cascade: Cascade, query: str, served: Served) -> Trace:
    """With the rewrites at those stages that had them, as it was served."""
    texts, queries = served.rewrites or None, [query]
    at = {stage: texts if stage in served.used_at else None for stage in STAGES}
    candidates = cascade.candidates(queries, [at["recall"]])
    return cascade.finerank(queries, [at["finerank"]], cascade.rawrank(queries, [at["rawrank"]], candidates))


def _went_wrong(served: Served) -> bool:
    """Whether a stage was answered by the one before, or without a rewrite that could not be scored: it may be scored today."""
    status = served.signal_status.items()
    return any(
        name.endswith(".original") or (state == SignalStatus.ERROR and name.partition(".")[0] in served.used_at)
        for name, state in status
    )


def _entries(log: Path, unseal: Unseal | None) -> tuple[Sequence[ServedLine], int]:
    entries, passed_over = [], 0
    for path in log_files(log):
        for line in log_lines(path):
            try:
                entry = read_served(line if unseal is None else unseal(line))
            except ValueError:
                passed_over += 1
                continue
            if entry.served.texts == "plain" and not _went_wrong(entry.served):
                entries.append(entry)
            else:
                passed_over += 1
    return entries, passed_over
