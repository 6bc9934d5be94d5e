"""Search logs: reading, outcomes, mining, writing."""

from corewrite.logs.files import LogError
from corewrite.logs.ingest_report import IngestReport
from corewrite.logs.mined_files import (
    EvaluationOnlyError,
    read_evaluation_instances,
    read_instances,
    read_reformulations,
    write_instances,
    write_reformulations,
)
from corewrite.logs.mining import (
    ImpressionTable,
    Propensity,
    Reformulation,
    build_query,
    fit_propensity,
    labelled_impressions,
    mine_instances,
    mine_reformulations,
)
from corewrite.logs.outcomes import Outcomes, SatisfactionThresholds, find_outcomes
from corewrite.logs.reader import read_log
from corewrite.logs.tables import SearchLog
from corewrite.logs.texts import require_texts
from corewrite.logs.times import parse_time
from corewrite.logs.writer import UbiWriter

__all__ = [
    "EvaluationOnlyError",
    "ImpressionTable",
    "IngestReport",
    "LogError",
    "Outcomes",
    "Propensity",
    "Reformulation",
    "SatisfactionThresholds",
    "SearchLog",
    "UbiWriter",
    "build_query",
    "find_outcomes",
    "fit_propensity",
    "labelled_impressions",
    "mine_instances",
    "mine_reformulations",
    "parse_time",
    "read_evaluation_instances",
    "read_instances",
    "read_log",
    "read_reformulations",
    "require_texts",
    "write_instances",
    "write_reformulations",
]
