"""The searches of a launch from a log, with outcomes by one rule for both arms."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corewrite.domain.steps import Steps
from corewrite.logs import LogError, SatisfactionThresholds, SearchLog, find_outcomes, read_log
from corewrite.logs.files import ENDINGS, log_files
from corewrite.logs.outcomes import BY_DISPLAYED, Overlap
from corewrite.logs.sealing import Unseal

FloatArray = npt.NDArray[np.float64]

_ALONE = "similar texts alone, without a ranking to ask: a repair in other words counts as given up"
_RULES = {
    "conversion": "any conversion, there are no watch times",
    "click": "any click, there are neither watch times nor conversions",
}


@dataclass(frozen=True, eq=False)
class LaunchLog:
    """Searches, and how their outcomes were told.

    Attributes:
        searches: One row per search, see `corewrite.experiment.check_searches`.
        same_intent: How it was told that two queries ask for the same.
        satisfied_by: How satisfaction was told.
        frozen: Whether that was settled before this log, so that no outcome is revised as it grows.
        thresholds: Watch times that satisfied; None where another rule told.
        warnings: What to know before quoting a rate.
    """

    searches: pa.Table
    same_intent: str
    satisfied_by: str
    frozen: bool
    thresholds: SatisfactionThresholds | None
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """All but the searches, for JSON; `thresholds` as `load_thresholds` reads them."""
        t = self.thresholds
        return {
            "same_intent": self.same_intent,
            "satisfied_by": self.satisfied_by,
            "frozen": self.frozen,
            "thresholds": None if t is None else {"edges": t.edges.tolist(), "seconds": t.seconds.tolist()},
            "warnings": list(self.warnings),
        }


def load_launch(
    paths: Sequence[Path],
    *,
    ranking: tuple[Overlap, str] | None = None,
    thresholds: SatisfactionThresholds | None = None,
    since: float | None = None,
    until: float | None = None,
    unseal: Unseal | None = None,
    steps: Steps,
) -> LaunchLog:
    """Read the searches of a launch.

    Whether two queries have the same intent is decided by one function for all arms: by their texts and, where there is a
    ranking, by the overlap of their results in it without a rewrite. Never by the lists that were displayed: those are the
    treatment itself.

    Args:
        paths: UBI files, packed or not, or folders of them; or one Parquet of searches that has outcomes already.
        ranking: Overlap of the results of two texts under the original-only ranking, and in words which ranking it is.
        thresholds: Watch times that satisfy, frozen before the launch; None: fitted on this log.
        since, until: Moments between which searches count, seconds since 1970; None: all of the log. What comes after still
            says how they ended.
        unseal: Opens sealed texts.
        steps: Shows progress.

    Raises:
        LogError: a file cannot be read, texts are hashed or sealed, or no search lies between the moments.
    """
    files = _files(paths)
    tables = [file for file in files if _is_table(file)]
    if tables:
        if len(files) > 1:
            raise LogError(f"{tables[0]} is a table of searches: give it alone, or a log alone")
        with steps.step("read the searches"):
            return _of_table(tables[0], since, until)
    with steps.step("read the log"):
        log = read_log(files, unseal=unseal)
        _refuse_hashes(log, since, until)
    overlap, told = (_text_alone, _ALONE) if ranking is None else ranking
    with steps.step("how the searches ended"):
        outcomes = find_outcomes(log, overlap=overlap, thresholds=thresholds)
    report = log.report
    warnings = [*report.warnings]
    if report.rejected:
        warnings.append(f"{report.rejected} of {report.lines} lines could not be used: `corewrite ingest` says why")
    frozen = outcomes.rule != "watch" or thresholds is not None
    if not frozen:
        warnings.append(
            "which watch times satisfy was fitted on this very log: freeze it before a launch, or later looks revise outcomes"
        )
    watched = f"watch time over thresholds {'frozen before' if frozen else 'fitted on this log'}"
    return LaunchLog(
        _between(outcomes.to_arrow(), since, until),
        told,
        _RULES.get(outcomes.rule, watched),
        frozen,
        outcomes.thresholds,
        tuple(warnings),
    )


def load_thresholds(file: Path) -> SatisfactionThresholds:
    """Thresholds of satisfaction out of a JSON file: alone, or under "thresholds" as in a plan or a mined week's about.json.

    Raises:
        ValueError: they are not there, or are none.
    """
    try:
        found = json.loads(file.read_text("utf-8"))
        found = found.get("thresholds", found)
        edges, seconds = (np.array([float(v) for v in found[name]], np.float64) for name in ("edges", "seconds"))
        if len(seconds) != len(edges) + 1 or not np.isfinite([*edges, *seconds]).all() or (np.diff(edges) <= 0).any():
            raise ValueError("seconds must be one more than edges, all finite, edges rising")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{file} holds no thresholds of satisfaction ({error}): give what `corewrite experiment plan --json` printed, or a "
            "mined week's about.json"
        ) from error
    return SatisfactionThresholds(edges, seconds)


def _files(paths: Sequence[Path]) -> list[Path]:
    found = []
    for path in paths:
        if not path.exists():
            raise LogError(f"{path} is not there: name UBI files, folders of them, or a Parquet of searches")
        files = log_files(path)
        if not files:
            raise LogError(f"{path} holds no log: files end in {', '.join(ENDINGS)}")
        found += files
    return found


def _text_alone(pairs: Sequence[tuple[str, str]]) -> FloatArray:
    return np.zeros(len(pairs))


def _refuse_hashes(log: SearchLog, since: float | None, until: float | None) -> None:
    """Of hashes no repaired query can be told from a new one: then all would be given up, in both arms unlike."""
    table = _between(log.searches.select("timestamp", "texts").to_pyarrow(), since, until)
    unreadable = {kind: pc.sum(pc.equal(table["texts"], kind)).as_py() or 0 for kind in ("hashed", "sealed")}
    if unreadable["hashed"]:
        raise LogError(
            f"{unreadable['hashed']} of {len(table)} searches hold hashes in the place of texts, of which no repaired query "
            "can be told from a new one: serve with `log.query_text: true`, and name with --since when that began"
        )
    if unreadable["sealed"]:
        raise LogError(
            f"{unreadable['sealed']} of {len(table)} searches hold sealed texts: name their keys as `privacy.keys` in --config"
        )


def _between(table: pa.Table, since: float | None, until: float | None) -> pa.Table:
    at = table["timestamp"].to_numpy()
    inside = (at >= (-np.inf if since is None else since)) & (at < (np.inf if until is None else until))
    if not inside.any():
        raise LogError(f"none of the {len(table)} searches lies between the moments that were named")
    return table.filter(pa.array(inside))


def _is_table(file: Path) -> bool:
    """Whether a file is a Parquet of searches and not of a log's lines."""
    if file.suffix != ".parquet":
        return False
    try:
        return "outcome" in pq.read_schema(file).names
    except (OSError, pa.ArrowInvalid) as error:
        raise LogError(f"{file}: cannot read the log: {error}") from error


def _of_table(file: Path, since: float | None, until: float | None) -> LaunchLog:
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise LogError(f"{file}: cannot read the searches: {error}") from error
    if "timestamp" not in table.column_names:
        raise LogError(f"{file}: the searches lack column 'timestamp', add it")
    if BY_DISPLAYED.items() <= (table.schema.metadata or {}).items():
        raise LogError(
            f"{file}: its outcomes were told by the displayed lists, in which arms differ, as `corewrite ingest` does: name "
            "the log itself"
        )
    told = "as the table has it: make sure that one function told it for all arms, not the displayed lists"
    return LaunchLog(_between(table, since, until), told, "as the table has it", True, None, ())
