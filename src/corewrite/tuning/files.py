"""Tuning from files: requests as Parquet, broken rewriters made of a log's own rewrites, the tuned spec as YAML."""

from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from corewrite.fusion import FusionSpec, StageSpec, recommended_eps
from corewrite.storage.durable import naming
from corewrite.tuning.data import TuningRequests
from corewrite.tuning.outcome import TradeOff

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
REQUEST_COLUMNS = ("request_id", "document_id", "group", "relevance")


class RequestsError(ValueError):
    """A file of requests that cannot be tuned on; the message names the file, the place and the fix."""


def read_requests(path: Path) -> TuningRequests:
    """Read requests, one row per (request, document), in any order.

    Columns: `request_id`, `document_id`, `group` (user or conversation), `relevance` (graded, 0 for not relevant),
    `query.SIGNAL` for each signal under the query, and `rewrite.KIND.SIGNAL` for each rewrite signal under each kind of
    rewrite; null on a document of a request: that kind has no rewrite for it. Equal scores rank by document id.

    Raises:
        RequestsError: the file cannot be read, lacks a column, or contradicts itself.
    """
    if not path.is_file():
        raise RequestsError(f"{path}: no such file")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise RequestsError(f"{path}: cannot read it as Parquet: {error}") from error
    missing = [name for name in REQUEST_COLUMNS if name not in table.column_names]
    if missing:
        raise RequestsError(f"{path}: column(s) {', '.join(missing)} missing; there are {', '.join(table.column_names)}")
    names = {kind: np.asarray(table[kind].cast(pa.string()).to_pylist(), dtype=str) for kind in REQUEST_COLUMNS[:3]}
    order = np.lexsort((names["document_id"], names["request_id"]))
    requests, documents, groups = (names[kind][order] for kind in REQUEST_COLUMNS[:3])
    twice = (requests[1:] == requests[:-1]) & (documents[1:] == documents[:-1])
    if twice.any():
        at = int(twice.argmax())
        raise RequestsError(f"{path}: document {documents[at]!r} stands twice in request {requests[at]!r}: keep one row")
    distinct, first, request, count = np.unique(requests, return_index=True, return_inverse=True, return_counts=True)
    torn = groups != groups[first][request]
    if torn.any():
        raise RequestsError(f"{path}: request {requests[torn.argmax()]!r} is in two groups: a request has one user")
    place = np.arange(len(requests)) - first[request]
    shape = (len(distinct), int(count.max(initial=0)))

    def spread(name: str, fill: float) -> FloatArray:
        try:
            values = np.asarray(table[name].cast(pa.float64()).to_numpy(), np.float64)
        except pa.ArrowInvalid as error:
            raise RequestsError(f"{path}: column {name!r} is not numeric: {error}") from error
        out = np.full(shape, fill)
        out[request, place] = values[order]
        return out

    valid = np.zeros(shape, np.bool_)
    valid[request, place] = True
    under_query, under_rewrite = {}, dict[str, dict[str, FloatArray]]()
    for name in table.column_names:
        side, _, rest = name.partition(".")
        if side == "query" and rest:
            under_query[rest] = spread(name, 0.0)
        elif side == "rewrite":
            kind, _, signal = rest.partition(".")
            if not (kind and signal):
                raise RequestsError(f"{path}: column {name!r} must be named rewrite.KIND.SIGNAL")
            under_rewrite.setdefault(kind, {})[signal] = spread(name, 0.0)
    try:
        return TuningRequests(tuple(groups[first].tolist()), spread("relevance", 0.0), valid, under_query, under_rewrite)
    except ValueError as error:
        raise RequestsError(f"{path}: {error}") from error


def broken_rewrites(
    rewrites: Sequence[str | None], groups: Sequence[Hashable], categories: Sequence[Hashable], *, seed: int
) -> dict[str, list[str | None]]:
    """Broken rewriters that need no relevance judgements: a log's own rewrites, given to other queries.

    Args:
        rewrites: The champion's, in the order of time.
        groups: User, session or conversation of each.
        categories: Whatever makes two requests alike.
        seed: Of the shuffles; every request gets another request's rewrite.

    Returns:
        `shuffled` among all, `shuffled_in_category` (none for a request alone in its category), `previous` (of the request
        before in the group, none for the first), `commonest` for all.
    """
    rng = np.random.default_rng(seed)
    before: dict[Hashable, str | None] = {}
    previous = []
    for group, rewrite in zip(groups, rewrites, strict=True):
        previous.append(before.get(group))
        before[group] = rewrite
    commonest = Counter(r for r in rewrites if r).most_common(1)
    members: dict[Hashable, list[int]] = {}
    for i, category in enumerate(categories):
        members.setdefault(category, []).append(i)
    everyone = np.arange(len(rewrites))
    return {
        "shuffled": _moved(rewrites, [everyone], rng),
        "shuffled_in_category": _moved(rewrites, [np.array(m) for m in members.values()], rng),
        "previous": previous,
        "commonest": [commonest[0][0] if commonest else None] * len(rewrites),
    }


def _moved(rewrites: Sequence[str | None], parts: Sequence[IntArray], rng: np.random.Generator) -> list[str | None]:
    """Each part permuted cyclically in a random order, so that no rewrite keeps its place."""
    found: list[str | None] = [None] * len(rewrites)
    for part in parts:
        circle = rng.permutation(part)
        if len(circle) > 1:
            for taker, giver in zip(circle, np.roll(circle, 1), strict=True):
                found[taker] = rewrites[giver]
    return found


def tuned_spec(spec: FusionSpec, stage: StageSpec) -> FusionSpec:
    """`spec` with `stage` as its finerank, validated again as a whole."""
    return type(spec).model_validate(spec.model_copy(update={"finerank": stage}).model_dump(mode="json"))


def write_spec(spec: FusionSpec, path: Path, found: TradeOff) -> None:
    """Write a tuned spec, headed by what it was chosen for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = (
        f"# finerank tuned by `corewrite fusion tune` to a budget of {found.budget:.2%}; held out: gain "
        f"{found.held_out.gain.value:+.2%}, largest loss {found.held_out.worst.value:+.2%}\n"
    )
    with naming(path):
        path.write_text(head + yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), "utf-8")


def random_pair_eps(requests: TuningRequests, stage: StageSpec) -> dict[str, float]:
    """The eps that `recommended_eps` gives each rewrite signal, as a reference for the tuned one.

    On the signals under the kind `shuffled`, where the requests have it (random pairs), else under the queries: pairs that
    recall chose, which makes it higher.
    """
    found = {}
    for j in stage.rewrite:
        shuffled = requests.under_rewrite.get("shuffled", {}).get(j.signal)
        under_query = requests.under_query[j.signal]
        # A rewriter that leaves every query alone has nothing to shuffle.
        values = under_query if shuffled is None or not np.isfinite(shuffled[requests.valid]).any() else shuffled
        inside = values[requests.valid & np.isfinite(values)]
        found[j.signal] = recommended_eps(inside.tolist())
    return found
