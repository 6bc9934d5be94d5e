"""Requests of a log to tune a spec on: candidates of finerank, their grades, their signals under good and broken rewrites."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.cycle.config import CycleConfig
from corewrite.cycle.finished_week import FinishedWeek
from corewrite.cycle.mined_week import with_documents
from corewrite.cycle.weeks import CycleError
from corewrite.deployment.load import load_policy
from corewrite.deployment.served import served_rewrites
from corewrite.domain import Documents, Query, is_identity, text_key
from corewrite.domain.steps import Steps
from corewrite.fusion import evaluate_stage
from corewrite.rewriter import Rewriter, as_rewrite, sample
from corewrite.search import Cascade
from corewrite.storage.durable import make_private, whole_file
from corewrite.tuning.data import CHAMPION, TuningRequests
from corewrite.tuning.files import broken_rewrites
from corewrite.tuning.quality import ndcg10

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Texts = Sequence[str | None]

SAMPLES = 16


def log_requests(config: CycleConfig, week: str | None, limit: int, *, steps: Steps) -> tuple[pa.Table, dict[str, str]]:
    """Requests of a finished week's gate users, whom the champion was not trained on, graded by the judge.

    Broken kinds: the champion's rewrites `shuffled` among all, of the `previous` request of the user, the `commonest` for all,
    of the `distractor` (the nearest other query in the relevance model's space), and the `worst_of_16` samples.

    Args:
        config: Settings of the cycle.
        week: Its name; None: the last finished one.
        limit: Requests at most.
        steps: Shows progress.

    Returns:
        The table that `read_requests` reads, and what it is of: week, policy, relevance model, spec.

    Raises:
        CycleError: no champion, no such week, no search of a gate user in it, or no rewrite signal at finerank.
    """
    finished = FinishedWeek(config, week)
    if not finished.deployment.spec.finerank.rewrite:
        raise CycleError("finerank of the champion's spec has no rewrite signal to tune: name one under `rewrite`")
    instances = with_documents(finished.window.for_gate(limit), finished.documents)
    if not instances:
        raise CycleError(f"the log of {finished.week!r} gives no search of a gate user: take another week, or a longer log")
    queries, users = [x.query for x in instances], [x.user_id for x in instances]
    cascade, policy = finished.deployment.cascade, load_policy(finished.registry, finished.champion.policy)
    length = config.pipeline.max_new_tokens
    with steps.step("rewrite") as progress:
        rewrites = served_rewrites(policy, queries, max_new_tokens=length)
        kinds: dict[str, list[str | None]] = {CHAMPION: rewrites}
        kinds |= broken_rewrites(rewrites, users, range(len(users)), seed=config.seed)
        del kinds["shuffled_in_category"]  # a log knows of no categories; the nearest query is of the same as a rule
        kinds["distractor"] = nearest_other(cascade, queries, rewrites)
        keys = [text_key(x.instance_id) for x in instances]
        samples = sampled(policy, queries, keys, seed=config.seed, max_new_tokens=length, progress=progress)
    with steps.step("grade and score"):
        requests, rows = build_requests(cascade, queries, users, kinds, samples, lambda r: finished.judge.grade(queries, r))
    about = {"week": finished.week} | {str(kind): hash for kind, hash in finished.champion.hashes.items()}
    return as_table(requests, rows, [x.instance_id for x in instances], finished.documents), about


def build_requests(
    cascade: Cascade,
    queries: Sequence[Query],
    groups: Sequence[str],
    kinds: Mapping[str, Texts],
    samples: Sequence[Texts],
    grade: Callable[[IntArray], FloatArray],
) -> tuple[TuningRequests, IntArray]:
    """Candidates of finerank with no rewriter, under every kind of rewrite and under the worst sample.

    Args:
        cascade: Ranks, and has the signals.
        queries: What was searched.
        groups: User or conversation of each.
        kinds: Rewrites by kind, `champion` among them; None, or the query itself: no rewrite.
        samples: Rewrites sampled from the champion, [samples][searches]: the kind `worst_of_16` is the one of them, for each
            search, that the fused list has the lowest nDCG@10 under.
        grade: Relevance of rows, int64 [searches, candidates], -1 pads.

    Returns:
        The requests and the candidates' rows.
    """
    stage, texts = cascade.spec.finerank, [q.text for q in queries]
    # The candidates are kept in the order of the catalogue, so in that of their columns; -1 pads.
    rows = cascade.trace(texts, [None] * len(texts)).finerank.rows
    valid, relevance, under_query = rows >= 0, grade(rows), cascade.under_query(stage, texts, rows)

    def under(rewrites: Texts) -> dict[str, FloatArray]:
        absent = np.array([is_identity(q, r) for r, q in zip(rewrites, texts, strict=True)])
        written = [r or "" for r in rewrites]
        return {
            j.signal: np.where(absent[:, None], np.nan, cascade.signals[j.signal].score(written, rows)) for j in stage.rewrite
        }

    found = {kind: under(rewrites) for kind, rewrites in kinds.items()}
    drawn = [under(rewrites) for rewrites in samples]
    if drawn:
        stacked = {name: np.stack([signals[name] for signals in drawn]) for name in drawn[0]}
        shape = (len(drawn), *rows.shape)
        scores = evaluate_stage(stage, under_query, stacked, valid=np.broadcast_to(valid, shape)).log_score
        worst = ndcg10(scores, relevance).argmin(0)
        found[f"worst_of_{len(drawn)}"] = {name: x[worst, np.arange(len(texts))] for name, x in stacked.items()}
    return TuningRequests(tuple(groups), relevance, valid, under_query, found), rows


def sampled(
    policy: Rewriter,
    queries: Sequence[Query],
    keys: Sequence[int],
    *,
    seed: int,
    max_new_tokens: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[str | None]]:
    """`SAMPLES` rewrites of every query at temperature 1, [samples][queries]; None where the query is too long for a prompt."""
    fits = policy.template.fitting(queries)
    prompts = [policy.template.encode(queries[i]) for i in fits]
    drawn = sample(
        policy,
        prompts,
        SAMPLES,
        keys=[keys[i] for i in fits],
        seed=seed,
        phase=0,
        max_new_tokens=max_new_tokens,
        progress=progress,
    )
    found: list[list[str | None]] = [[None] * len(queries) for _ in range(SAMPLES)]
    for i, row in zip(fits, drawn, strict=True):
        for k, completion in enumerate(row):
            found[k][i] = as_rewrite(policy, completion).text or None
    return found


def nearest_other(cascade: Cascade, queries: Sequence[Query], rewrites: Texts) -> list[str | None]:
    """For each query the rewrite of its nearest neighbour with another rewrite, by the embeddings of the model that recalls.

    None where all have the same.
    """
    vectors = cascade.embed([q.text for q in queries])
    wanted = [r or q.text for q, r in zip(queries, rewrites, strict=True)]
    _, of = np.unique(wanted, return_inverse=True)
    found: list[str | None] = []
    for i, vector in enumerate(vectors):
        near = np.where(of == of[i], -np.inf, vectors @ vector)
        j = int(near.argmax())
        found.append(wanted[j] if np.isfinite(near[j]) else None)
    return found


def as_table(requests: TuningRequests, rows: IntArray, ids: Sequence[str], documents: Documents) -> pa.Table:
    """One row per (request, candidate); see `read_requests`."""
    request, place = np.nonzero(requests.valid)
    columns: dict[str, object] = {
        "request_id": [ids[i] for i in request.tolist()],
        "document_id": documents.load_ids(rows[request, place]),
        "group": [requests.group[i] for i in request.tolist()],
        "relevance": requests.relevance[request, place],
    }
    columns |= {f"query.{name}": x[request, place] for name, x in requests.under_query.items()}
    for kind, signals in requests.under_rewrite.items():
        columns |= {
            f"rewrite.{kind}.{name}": pa.array(x[request, place], mask=np.isnan(x[request, place]))
            for name, x in signals.items()
        }
    return pa.table(columns)


def write_requests(table: pa.Table, path: Path) -> None:
    """Write the file whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        pq.write_table(table, make_private(temporary))
