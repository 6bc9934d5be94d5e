"""Results of a longitudinal simulation: arms compared on the same users, with intervals."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from corewrite.cycle.records import WeekRecord
from corewrite.cycle.status import load_history
from corewrite.domain.traffic_split import HOLDBACK
from corewrite.storage.durable import naming
from corewrite.studies.layout import FIRST_WEEK, week_name
from corewrite.studies.longitudinal.config import LongitudinalConfig
from corewrite.studies.longitudinal.layout import LongitudinalLayout
from corewrite.studies.ratios import ratio_of_sums, standard_error
from corewrite.studies.summary import machine
from corewrite.version import VERSION

FloatArray = npt.NDArray[np.float64]


def summarise_longitudinal(
    config: LongitudinalConfig, folder: Path, rows: Sequence[Mapping[str, Any]], seconds: float
) -> dict[str, Any]:
    """The figures beside `weeks.json`: comparisons of arms, the share promoted, rejections and what promotion came after each,
    alarms, provenance."""
    weeks = range(FIRST_WEEK, FIRST_WEEK + config.weeks)
    weekly = [r for r in rows if r["arm"] == "weekly"]
    number = {week_name(w): w - FIRST_WEEK + 1 for w in weeks}
    history = [r for r in _weekly_history(folder) if r["week"] in number]
    return {
        "seed": config.seed,
        "weeks": config.weeks,
        "machine": machine(),
        "code_version": VERSION,
        "command": f"corewrite simulate --weeks {config.weeks} --seed {config.seed}",
        "seconds": round(seconds, 1),
        "simulated": True,
        "comparisons": [
            compare(folder, weeks, "weekly", other, metric)
            for other in ("never", HOLDBACK, "no_gate")
            for metric in ("cqr", "give_up", "ndcg10")
        ],
        "below_holdback": below_holdback(folder, weeks),
        "promoted_share": sum(r["verdict"] == "promote" for r in weekly) / len(weekly),
        "verdicts": {v: sum(r["verdict"] == v for r in weekly) for v in ("promote", "hold", "reject")},
        "rejections": [
            {
                "week": number[r["week"]],
                "reason": r["reason"],
                "mitigation": ", ".join(r["mitigations"]) if not r["recovered"] else "previous model and spec put back",
                "recovered_in": next((number[x["week"]] for x in history[i:] if x["verdict"] == "promote"), None),
            }
            for i, r in enumerate(history)
            if r["verdict"] == "reject"
        ],
        "alarms": [{"week": number[r["week"]], "text": text} for r in history for text in r["alarms"]],
        "provenance": history[-1]["provenance"] if history else {},
    }


def compare(folder: Path, weeks: Sequence[int], arm: str, other: str, metric: str, confidence: float = 0.95) -> dict[str, Any]:
    """Arm minus other over `weeks`, paired by user: the same users meet both.

    Returns:
        name, metric, difference, low, high, weeks, n (users).
    """
    read = _ndcg if metric == "ndcg10" else _rates
    per_user = read(folder, weeks, arm, other, {"cqr": "changed", "give_up": "gave_up"}.get(metric, ""))
    a, n, b, m = per_user
    (own, own_parts), (others, other_parts) = ratio_of_sums(a, n), ratio_of_sums(b, m)
    difference, error = own - others, standard_error(own_parts - other_parts)
    t = float(stats.t.ppf(0.5 + confidence / 2, max(1, len(n) - 1)))
    return {
        "name": f"{arm} minus {other}, {metric}",
        "metric": metric,
        "difference": difference,
        "low": difference - t * error,
        "high": difference + t * error,
        "weeks": len(weeks),
        "n": len(n),
    }


def below_holdback(folder: Path, weeks: Sequence[int]) -> list[dict[str, Any]]:
    """Weekly minus holdback of each week, higher is better: CQR and nDCG@10, at 95 % corrected for the number of weeks."""
    confidence = 1 - 0.05 / len(weeks)
    found = []
    for week in weeks:
        for metric, sign in (("cqr", -1.0), ("ndcg10", 1.0)):
            c = compare(folder, [week], "weekly", HOLDBACK, metric, confidence)
            low, high = sorted((sign * c["low"], sign * c["high"]))
            found.append({"week": week - FIRST_WEEK + 1, "metric": metric, "low": low, "high": high})
    return found


def _rates(folder: Path, weeks: Sequence[int], arm: str, other: str, column: str) -> tuple[FloatArray, ...]:
    tables = {
        name: pa.concat_tables([pq.read_table(folder / "weeks" / f"{w:02d}-{name}-users.parquet") for w in weeks])
        for name in (arm, other)
    }
    names = np.unique(np.concatenate([np.asarray(t["user_id"].to_pylist()) for t in tables.values()]))
    sums = []
    for name in (arm, other):
        at = np.searchsorted(names, np.asarray(tables[name]["user_id"].to_pylist()))
        for field in (column, "ended"):
            sums.append(np.bincount(at, tables[name][field].to_numpy(), len(names)).astype(np.float64))
    return tuple(sums)


def _ndcg(folder: Path, weeks: Sequence[int], arm: str, other: str, column: str) -> tuple[FloatArray, ...]:
    table = pa.concat_tables([pq.read_table(folder / "weeks" / f"{w:02d}-ndcg.parquet") for w in weeks])
    _, of = np.unique(np.asarray(table["user_id"].to_pylist()), return_inverse=True)
    count = np.bincount(of).astype(np.float64)
    sums = [np.bincount(of, table[name].to_numpy()).astype(np.float64) for name in (arm, other)]
    return sums[0], count, sums[1], count


def write_longitudinal(folder: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Path:
    """Write weeks.json, summary.json and report.html; returns the report's path."""
    from corewrite.report import render_weeks

    with naming(folder):
        for name, value in (("weeks", rows), ("summary", about)):
            (folder / f"{name}.json").write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")
        report = folder / "report.html"
        report.write_text(render_weeks(rows, about), "utf-8")
    return report


def _weekly_history(folder: Path) -> list[WeekRecord]:
    """Records of the weekly arm's cycles."""
    return load_history(LongitudinalLayout(folder).run("weekly").root)
