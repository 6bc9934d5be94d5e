"""Writes docs/reference/files.md: the columns and fields of every file, from the code that reads and writes it."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from page_tables import attributes, table
from pydantic import BaseModel

from corewrite.cycle.catalogue_files import write_labels
from corewrite.cycle.grading import add_grades, write_pairs
from corewrite.deployment.inputs import LABELS, REWRITES
from corewrite.domain import Catalogue, Context, Query, TrainingInstance, query_columns
from corewrite.domain.settings import iterate_parts
from corewrite.experiment.ab.searches import SEARCH_SCHEMA
from corewrite.logs import Reformulation, pack, reader, served, write_instances, write_reformulations
from corewrite.relevance import Labels
from corewrite.relevance.pair_sample import PairsToGrade
from corewrite.search.document_columns import NEEDED, STANDARD
from corewrite.tuning.files import REQUEST_COLUMNS

PAGE = "reference/files.md"
HEAD = """\
# File schemas

Made by `python tools/reference.py` from the code that reads and writes the files. All tables are Parquet.

| file | who makes it |
| --- | --- |
| [documents](#documents), [labels](#labels), [rewrites](#rewrites), [search log](#search-log) | you |
| [fusion spec](fusion-spec.md), [corewrite.yaml](corewrite-yaml.md) | you |
| [served log](#served-log), [packed log](#packed-log) | `corewrite serve`, `corewrite log pack` |
| [mined weeks](#mined-weeks), [the run folder](#the-run-folder) | `corewrite cycle`, `corewrite train` |
| [tuning requests](#tuning-requests), [table of searches](#table-of-searches) | `corewrite`, or you |
"""
QUERY = {
    "query": "the query as typed",
    "context_queries": "earlier queries of the session, oldest first",
    "context_titles": "titles watched or clicked before it, oldest first",
    "locale": "BCP 47 language tag; empty where unknown",
}
LABEL = QUERY | {
    "document_id": "`id` of the rated document",
    "grade": "the rater's grade, 0 (not relevant) to 3; for (query, context), never for a rewrite",
    "search_id": "`query_id` of the search that was graded, where it was one of a week's [pairs](#pairs-to-grade)",
}
REWRITE = QUERY | {"rewrite": "what it should become: one line, 120 characters at most, no control characters"}
PAIRS = {
    "search_id": "`query_id` of the search in the log",
    **QUERY,
    "document_id": "`id` of the document",
    "title": "its title",
    "probability": "with which the pair was chosen; raters need not see it",
}
DOCUMENT = {
    "id": "text or whole number, unique",
    "title": "the title",
    "text": "further text: tags, creator, transcript",
    "visual": "the picture's embedding, of one length",
    "seconds": "duration",
    "prior": "quality whatever the query, in (0, 1]; 1 where it is missing",
}
SEARCH = {
    "query_id": "`query_id`",
    "user_id": "`client_id` (`user_id` in UBI before 1.3.0)",
    "session_id": "`query_attributes.session_id`, or `session_id`",
    "timestamp": "`timestamp`, ISO 8601; seconds since the epoch",
    "query": "`user_query`, as typed",
    "hit_ids": "`query_response_hit_ids`, in the order displayed",
    "context_titles": "`query_attributes.context_titles`, oldest first",
    "locale": "`query_attributes.locale`",
    "arm": "`query_attributes.arm`, as served",
    "bucket": "`query_attributes.bucket`, of 10,000; null where it is not logged",
    "impacted": "`query_attributes.impacted`: whether the two arms' lists differ; null where it is not known, never false",
    "pair": "`query_attributes.served.pair`: what `impacted` compares, control first",
    "rewritten": "whether some stage used a rewrite (`served.used_at`)",
    "texts": "`query_attributes.served.texts`: plain, hashed or sealed",
    "line": "the line's number in its file",
}
EVENT = {
    "query_id": "`query_id` of the search",
    "user_id": "`client_id`",
    "action": "`action_name`: click, watch, purchase, add_to_cart, impression, view; others only show that the user was there",
    "document_id": "`event_attributes.object.object_id`",
    "position": "`event_attributes.position.ordinal`, from 1",
    "timestamp": "`timestamp`, ISO 8601; seconds since the epoch",
    "watch_seconds": "`event_attributes.watch_seconds`",
    "duration_seconds": "`event_attributes.duration_seconds`",
}
PACKED = {
    "line": "the whole line, also one that cannot be used",
    "kind": "query, event or other",
    "query_id": "of the line",
    "client_id": "of the line",
    "timestamp": "seconds since the epoch",
    "arm": "of a search",
    "bucket": "of a search",
    "action_name": "of an event",
}
AB = {
    "user_id": "the user",
    "arm": "arm as served",
    "timestamp": "seconds since the epoch",
    "outcome": "`satisfied`, `changed_unsatisfied`, `gave_up` or `censored`",
    "impacted": "whether the arms' lists differ; null where it is not known",
    "plain_changed": "1 where any other query followed within 30 minutes; null where censored",
    "watch_seconds": "watched in all, at least 0",
    "pair": "the two arms that `impacted` compares, control first; the column may be missing",
    "rewritten": "whether a rewrite was used; the column may be missing",
}
INSTANCE = QUERY | {
    "instance_id": "hash of the search",
    "user_id": "who searched",
    "positives": "ids of D+, what satisfied under this query or a later one of its chain",
    "gains": "weight of each of D+",
    "negatives": "ids of D-, examined and not wanted",
    "weights": "weight of each of D-, by inverse examination propensity",
    "timestamp": "seconds since the epoch",
}
REFORMULATION = QUERY | {"user_id": "who typed it", "target": "the query that satisfied in the end"}
REQUEST = {
    "request_id": "the request; equal scores rank by document id",
    "document_id": "a candidate of finerank",
    "group": "user or conversation: never split by the cross-validation, resampled whole",
    "relevance": "graded, 0 for not relevant",
    "query.SIGNAL": "a signal of the stage under the query",
    "rewrite.champion.SIGNAL": "a rewrite signal under the rewriter to gain by; null: it has no rewrite for the request",
    "rewrite.KIND.SIGNAL": "the same under a broken rewriter; any name, at least one",
}
RUN = """
## The run folder

What `corewrite cycle` and `corewrite train` keep under `run`.

| path | what |
| --- | --- |
| `registry/` | artifacts, the champion and every decision: `corewrite registry show --run RUN` |
| `windows/WEEK/` | a [mined week](#mined-weeks) |
| `cycles/WEEK/STEP.json` | the result of a step (`start`, `mine`, `relevance`, `spec`, `probe`, `train`, `gate`, `record`) |
| `cycles/WEEK/gate.json` | every check of the gate with its bounds: read it after a [HOLD or REJECT](../how-to/recover.md) |
| `cycles/WEEK/probe.json` | what the probe found, `random_pairs` among it |
| `rejects/WEEK.ndjson` | log lines that could not be used, with the reason |
| `training/` | phases, records and checkpoints of `corewrite train` |
| `start/` | the rewriter that `corewrite train` began from; of a week `cycles/WEEK/start/` |
| `conversations.json` | what `corewrite eval conversations` [measured](../how-to/evaluate.md#what-is-written) |
| `conversation-calibration.json` | what `corewrite eval calibrate` [fitted](../how-to/evaluate.md#fusion-and-its-calibration) |
| `ramp.json` | the [rollout](../how-to/roll-out.md) under way |
| `serving.killed` | there while the [kill switch](../how-to/serve.md#switching-it-off) is on |
"""


def page() -> str:
    """The page."""
    parts = [HEAD]
    kinds = {"text": "text", "vector": "list of numbers", "number": "number"}
    rows = [(f"`{n}`", kinds[k], "yes" if n in NEEDED else "", _of(DOCUMENT, n)) for n, k in STANDARD.items()]
    parts += ["\n## Documents\n\nA Parquet file or a folder of them, `documents:`. Further columns are kept: ", DOCUMENTS, "\n"]
    parts += ["\n", table(("column", "type", "required", "meaning"), rows)]
    schemas = _written()
    parts += ["\n## Labels\n\nRaters' grades for the judge, `labels:`, one row per rated result. ", LABELS_TEXT, "\n\n"]
    parts.append(_columns(schemas["labels"], LABEL, required=LABELS))
    parts += ["\n### Pairs to grade\n\n", PAIRS_TEXT, "\n\n", _columns(schemas["pairs"], PAIRS)]
    parts += ["\n## Rewrites\n\n", REWRITES_TEXT, "\n\n", _columns(schemas["rewrites"], REWRITE, required=REWRITES)]
    parts += ["\n## Search log\n\n", LOG_TEXT, "\n\nA search is read into these columns:\n\n"]
    parts += [_columns(reader.SEARCH_SCHEMA, SEARCH, said="field of the line"), "\nAn event into these:\n\n"]
    parts.append(_columns(reader.EVENT_SCHEMA, EVENT, said="field of the line"))
    parts += ["\n## Served log\n\n", SERVED_TEXT, "\n"]
    for kind in _records(served.ServedLine):
        parts += ["\n", f"### {kind.__name__}\n\n", _fields(kind)]
    parts += ["\n## Packed log\n\nWhat `corewrite log pack` makes of lines.\n\n", _columns(pack.SCHEMA, PACKED)]
    parts += ["\n## Mined weeks\n\n", MINED_TEXT, "\n\n### Instances\n\n", _columns(schemas["instances"], INSTANCE)]
    parts += ["\n### Reformulations\n\n", _columns(schemas["reformulations"], REFORMULATION)]
    parts += ["\n## Table of searches\n\nWhat `corewrite experiment` reads instead of a log: ", AB_TEXT, "\n\n"]
    parts.append(_columns(SEARCH_SCHEMA, AB))
    parts += [
        "\n## Tuning requests\n\n",
        TUNE_TEXT,
        "\n\n",
    ]
    if missing := [name for name in REQUEST_COLUMNS if name not in REQUEST]:
        raise ValueError(f"describe {', '.join(missing)} of the tuning requests")
    parts.append(table(("column", "meaning"), ((f"`{name}`", text) for name, text in REQUEST.items())))
    return "".join(parts) + RUN


DOCUMENTS = """\
text, number, list of numbers of one length, list of such lists; any can be an input or a signal of your ranker. Memory,
disk and what is missing: [Documents](documents.md)."""
LABELS_TEXT = """\
At least 100. Rows whose document is gone, or without query, document or grade, are left out with a warning; a file most of
whose documents are unknown is refused. Only the judge sees them, training never does."""
PAIRS_TEXT = """\
`RUN/cycles/WEEK/pairs-to-grade.parquet`, with `evaluation.pairs_to_grade`: what raters are asked before the gate decides
([Direct grades](../concepts/gate.md#direct-grades)). Add a column `grade` and bring the file back by `corewrite cycle
add-grades`; what a search was about is for you to tell your raters, by its `search_id`."""
REWRITES_TEXT = """\
Queries with their rewrites that a warm start learns from in the place of the log's reformulations (`warm_start.start: pairs`,
[What a training begins from](../how-to/train.md#what-a-training-begins-from)), a row each. In a conversation `context_titles`
holds the answers shown before. A row that cannot be learnt from is an error that names it."""
LOG_TEXT = """\
User Behavior Insights 1.3.0, one JSON document a line (`.ndjson`, `.gz`), an OpenSearch bulk file, what elasticdump writes, or
a [packed log](#packed-log); a file or a folder of files a week under `logs:`. What a log must hold:
[Your own log](../tutorials/your-own-log.md#what-you-must-have). `corewrite ingest LOG` says what one holds. Null is "not
known", never "no"."""
SERVED_TEXT = """\
What `corewrite serve` writes: a UBI 1.3.0 query a line, with what UBI has no field for under `query_attributes`. Any reader of
UBI reads it; so does every command here."""
MINED_TEXT = """\
`RUN/windows/WEEK/`: `instances.parquet` (training), `gate.parquet` (the same of the gate's users, marked so that training
refuses it), `repaired.parquet`, `good.parquet` and `gate-repaired.parquet` (reformulations), `impressions.parquet`,
`frequency.parquet`, `searches.parquet` (a [table of searches](#table-of-searches) and more), `users.parquet`, `about.json`."""
AB_TEXT = "one row per search ([A/B test](../how-to/ab-test.md#a-table-of-searches))."
TUNE_TEXT = """\
What `corewrite fusion requests` writes and `corewrite fusion tune` reads: one row per (request, document), in any order
([Tune](../how-to/tune.md#requests))."""


def _of(texts: Mapping[str, str], name: str) -> str:
    """What is said of a column; one that is new has to be described here."""
    if name not in texts:
        raise ValueError(f"describe the column {name!r} in {__file__}")
    return texts[name]


def _columns(schema: pa.Schema, texts: Mapping[str, str], *, required: tuple[str, ...] = (), said: str = "meaning") -> str:
    if gone := set(texts) - set(schema.names):
        raise ValueError(f"no column {sorted(gone)} any more")
    head = ("column", "type", *(["required"] if required else []), said)
    return table(
        head,
        (
            (f"`{f.name}`", _type(f.type), *([("yes" if f.name in required else "")] if required else []), _of(texts, f.name))
            for f in schema
        ),
    )


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    return str(kind)


def _records(kind: type[BaseModel]) -> list[type[BaseModel]]:
    """A record and those within it, each once."""
    found = [kind]
    for field in kind.model_fields.values():
        for part in iterate_parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found += _records(part)
    return list(dict.fromkeys(found))


def _fields(kind: type[BaseModel]) -> str:
    said = attributes(kind)
    return table(("field", "meaning"), ((f"`{name}`", said[name]) for name in kind.model_fields))


def _written() -> dict[str, pa.Schema]:
    """The schemas that the writers give, of a row each."""
    query = Query("q", Context(("p",), ("t",), "en"))
    catalogue = Catalogue(
        ids=("d", "e"),
        titles=("t", "u"),
        texts=("", ""),
        visual=np.zeros((2, 1), np.float32),
        seconds=np.ones(2),
        prior=np.ones(2),
    )
    instance = TrainingInstance("i", "u", query, ("d",), (1.0,), ("e",), (1.0,), 0.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_labels(Labels([query], np.array([0]), np.array([3.0])), catalogue, folder / "labels")
        write_pairs(PairsToGrade(["s"], [query], np.array([0]), np.ones(1)), catalogue, folder / "pairs")
        graded = pq.read_table(folder / "pairs")
        pq.write_table(graded.append_column("grade", pa.array([3.0])), folder / "graded")
        add_grades(folder / "graded", folder / "labels")
        pq.write_table(pa.table({**query_columns([query]), "rewrite": ["r"]}), folder / "rewrites")
        write_instances([instance], folder / "instances")
        write_reformulations([Reformulation(query, "r", "u")], folder / "reformulations")
        return {file.name: pq.read_schema(file) for file in folder.iterdir()}
