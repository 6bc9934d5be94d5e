"""Whether what was logged can be computed again: the check that serving and training rank alike."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.load import load_deployment
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.ranker import EMBEDDED_FACTS
from corewrite.domain import SignalStatus
from corewrite.fusion import ReplayResult, replay
from corewrite.fusion.spec import STAGES
from corewrite.logs.files import log_files, log_lines
from corewrite.logs.sealing import Unseal
from corewrite.logs.served import ServedLine, ServedSearch, read_served
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
    log: Path,
    registry: Registry,
    opener: RankerOpener,
    *,
    unseal: Unseal | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LogReplay:
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
    entries, left_out = _entries(log, unseal)
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
            deployments[triple] = load_deployment(registry, opener, *triple)
        deployment = deployments[triple]
        if (served.backends or EMBEDDED_FACTS) != deployment.ranker.facts:
            left_out["answered by other models or engines than the settings name"] += 1
            others.add(json.dumps(served.backends)[:200])
            continue
        searches += 1
        trace = _trace(deployment.cascade, entry.user_query, served)
        fusion, order, rows = trace.finerank.fusion, trace.order[0], trace.finerank.rows[0]
        ids = dict(zip(rows[rows >= 0].tolist(), documents.load_ids(rows[rows >= 0]), strict=True))
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
        answered = f"; these answered: {sorted(others)[0]}" if others else ""
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.most_common()) or "no line at all"
        raise ReplayError(f"{log} holds no search that can be recomputed: {reasons}{answered}")
    both = {n: (np.array(logged[n]), np.array(again[n])) for n in logged}
    tolerance = max(d.replay_tolerance for d in deployments.values())
    result = replay({n: x for n, (x, _) in both.items()}, {n: y for n, (_, y) in both.items()})
    by_factor = {n: replay({n: x}, {n: y}) for n, (x, y) in both.items()}
    return LogReplay(result, searches, same, left_out.total(), missing, by_factor, tolerance)


_UNREADABLE = {
    "hashed": "whose texts are hashes (serve with `log.query_text: true`, or seal them: `log.seal_to`)",
    "sealed": "whose texts are sealed (name their keys as `privacy.keys` in --config)",
}


def _trace(cascade: Cascade, query: str, served: ServedSearch) -> Trace:
    """With the rewrites at those stages that had them, as it was served."""
    texts, queries = served.rewrites or None, [query]
    at = {stage: texts if stage in served.used_at else None for stage in STAGES}
    candidates = cascade.candidates(queries, [at["recall"]])
    return cascade.finerank(queries, [at["finerank"]], cascade.rawrank(queries, [at["rawrank"]], candidates))


def _went_wrong(served: ServedSearch) -> bool:
    """Whether a stage was answered by the one before, or without a rewrite that could not be scored: it may be scored today."""
    status = served.signal_status.items()
    return any(
        name.endswith(".original") or (state == SignalStatus.ERROR and name.partition(".")[0] in served.used_at)
        for name, state in status
    )


def _entries(log: Path, unseal: Unseal | None) -> tuple[Sequence[ServedLine], Counter[str]]:
    entries, left_out = [], Counter[str]()
    for path in log_files(log):
        for line in log_lines(path):
            try:
                entry = read_served(line if unseal is None else unseal(line))
            except ValueError:
                left_out["lines that are no search of `corewrite serve`"] += 1
                continue
            if (texts := entry.served.texts) != "plain":
                left_out[_UNREADABLE[texts]] += 1
            elif _went_wrong(entry.served):
                left_out["in which a model did not answer in time"] += 1
            else:
                entries.append(entry)
    return entries, left_out
