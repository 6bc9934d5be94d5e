"""Whether what was logged can be computed again: the check that serving and training rank alike."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corewrite.deployment.backends import Backends
from corewrite.deployment.settings import EmbeddedIndex, EmbeddedRelevance
from corewrite.domain import Catalogue
from corewrite.fusion import ReplayResult, load_spec, replay
from corewrite.fusion.spec import STAGES
from corewrite.logs.files import log_files
from corewrite.registry import Kind, Registry
from corewrite.search import Cascade, Trace

_EMBEDDED = {"relevance": {"kind": "embedded"}, "engine": {"kind": "embedded"}}
"""What answered where a line, of a server that knew no others, does not say it."""


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
    """

    factors: ReplayResult
    searches: int
    same_lists: int
    passed_over: int
    missing: int


def replay_log(
    log: Path, registry: Registry, catalogue: Catalogue, *, backends: Backends | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LogReplay:  # fmt: skip
    """Recompute the searches of a log, each with the triple, the rewrites and the stages that it names.

    Args:
        log: A file, or a folder of them.
        registry: Holds the triples.
        catalogue: The documents of that time.
        backends: Relevance model and search engine; default: the embedded ones. What others answered is passed over.
        progress: Called with (searches done, of how many).

    Raises:
        ReplayError: nothing in the log can be recomputed.
        RegistryError: an artifact the log names is gone or damaged.
    """
    backends = backends or Backends(EmbeddedRelevance(), EmbeddedIndex(), catalogue)
    entries, passed_over = _entries(log, backends)
    if not entries:
        raise ReplayError(
            f"{log} holds no search that can be recomputed ({passed_over} lines passed over): texts must be logged, set "
            f"log.query_text, and answers come from {backends.facts}"
        )
    triples: dict[tuple[str, str], Cascade] = {}
    logged: dict[str, list[float]] = defaultdict(list)
    again: dict[str, list[float]] = defaultdict(list)
    same = missing = 0
    for done, entry in enumerate(entries, 1):
        served = entry["query_attributes"]["served"]
        triple = served["relevance"], served["spec"]
        if triple not in triples:
            triples[triple] = _cascade(registry, backends, *triple)
        trace = _trace(triples[triple], entry["user_query"], served)
        fusion, order = trace.finerank.fusion, trace.order[0]
        column = {catalogue.ids[int(row)]: j for j, row in enumerate(trace.finerank.rows[0]) if row >= 0}
        ranked = [catalogue.ids[int(trace.finerank.rows[0, j])] for j in order if trace.finerank.rows[0, j] >= 0]
        hits = entry["query_response_hit_ids"]
        same += ranked[: len(hits)] == hits
        missing += sum(hit not in column for hit in hits)
        found = {f"original.{n}": v for n, v in fusion.original_factors.items()}
        found |= {f"rewrite.{n}": v for n, v in fusion.rewrite_factors.items()}
        for name, values in served["factors"].items():
            for hit, value in zip(hits, values, strict=True):
                logged[name].append(float(value))
                here = np.broadcast_to(found[name], trace.finerank.rows.shape) if name in found else None
                again[name].append(float(here[0, column[hit]]) if here is not None and hit in column else np.nan)
        progress(done, len(entries))
    result = replay({n: np.array(v) for n, v in logged.items()}, {n: np.array(v) for n, v in again.items()})
    return LogReplay(result, len(entries), same, passed_over, missing)


def _trace(cascade: Cascade, query: str, served: dict[str, Any]) -> Trace:
    """With the rewrites at those stages that had them, as it was served."""
    texts, queries = tuple(served["rewrites"]) or None, [query]
    at = {stage: texts if stage in served["used_at"] else None for stage in STAGES}
    candidates = cascade.candidates(queries, [at["recall"]])
    return cascade.finerank(queries, [at["finerank"]], cascade.rawrank(queries, [at["rawrank"]], candidates))


def _cascade(registry: Registry, backends: Backends, relevance: str, spec: str) -> Cascade:
    def folder(kind: Kind, hash: str) -> Path:
        registry.verify(kind, hash)
        return registry.path(registry.artifact(kind, hash))

    return backends.cascade(relevance, folder("relevance", relevance), load_spec(folder("spec", spec) / "fusion.yaml"))


def _went_wrong(served: dict[str, Any]) -> bool:
    """Whether a stage was answered by the one before, or without a rewrite that could not be scored: it may be scored today."""
    status = served["signal_status"].items()
    return any(
        name.endswith(".original") or (state == "error" and name.partition(".")[0] in served["used_at"])
        for name, state in status
    )


def _entries(log: Path, backends: Backends) -> tuple[Sequence[dict[str, Any]], int]:
    entries, passed_over = [], 0
    for path in log_files(log):
        with path.open("rb") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    served = entry["query_attributes"]["served"]
                except (ValueError, TypeError, KeyError, RecursionError):
                    passed_over += 1
                    continue
                if served["texts"] and not _went_wrong(served) and served.get("backends", _EMBEDDED) == backends.facts:
                    entries.append(entry)
                else:
                    passed_over += 1
    return entries, passed_over
