"""The gate benchmark: candidates whose true effect is known, and how the gate decides on them.

Truth is nDCG@10 against hidden intents on searches of a week that no gate sees; the gate's judge never defines it. Which rows
are harmful or honest is decided by truth alone.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any

from corewrite.domain.settings import same_settings
from corewrite.domain.steps import Steps
from corewrite.gate.calibrate import Share
from corewrite.storage.durable import naming
from corewrite.storage.journal import write_json
from corewrite.studies.gate_benchmark.cases import Case, cases
from corewrite.studies.gate_benchmark.config import GateBenchConfig
from corewrite.studies.gate_benchmark.env import BenchmarkEnv
from corewrite.studies.summary import machine
from corewrite.version import VERSION

Row = Mapping[str, Any]

COLUMNS = (
    "family",
    "strength",
    "seed",
    "true_ndcg_change",
    "true_low",
    "true_high",
    "judge_change",
    "verdict",
    "caught_by",
)
GAINS = {"0.5 to 1 %": (0.005, 0.01), "1 to 2 %": (0.01, 0.02), "over 2 %": (0.02, 1.0)}
"""Bands of an honest candidate's true gain."""
HARMFUL, BAND = -0.03, -0.10
"""Harmful: the upper end of the true change is below the first; the band is harmful with a change above the second."""


def run_bench(
    config: GateBenchConfig,
    folder: Path,
    *,
    steps: Steps,
    families: Sequence[str] = (),
    minutes: float | None = None,
) -> list[dict[str, Any]]:
    """Run the rows that are not there yet; returns all that are.

    Args:
        config: Sizes and platforms.
        folder: Where everything is kept; a run that was cut off goes on. Processes may share it, with other seeds each.
        steps: Shows progress.
        families: Only these, or those that begin so; empty: all.
        minutes: After which no further row begins; None: no limit.

    Raises:
        ValueError: the folder holds a run under other settings, or there is no such family.
    """
    begun = perf_counter()
    _same_settings(config, folder)
    planned = {seed: cases(config, seed) for seed in config.seeds}
    names = sorted({case.family for some in planned.values() for case in some})
    if unknown_families := [f for f in families if not any(n.startswith(f) for n in names)]:
        raise ValueError(f"no family is called {unknown_families[0]!r}; there are {', '.join(names)}")
    wanted = {
        seed: [case for case in some if not families or case.family.startswith(tuple(families))]
        for seed, some in planned.items()
    }
    left = [case for some in wanted.values() for case in some if not _file(folder, case).is_file()]
    done, late = 0, False
    for seed, some in wanted.items():
        env = BenchmarkEnv(config, seed, folder / f"seed-{seed}", steps)  # of which nothing is made yet
        for case in some:
            late = late or (minutes is not None and perf_counter() - begun > 60 * minutes)
            if late or _file(folder, case).is_file():
                continue
            done += 1
            with steps.step(f"{done}/{len(left)} {case.family}: {case.strength}"):
                since = perf_counter()
                row = case.run(env)
                file = _file(folder, case)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_json(file, {**row, "seconds": round(perf_counter() - since, 1)})
    return load_rows(config, folder)


def load_rows(config: GateBenchConfig, folder: Path) -> list[dict[str, Any]]:
    """The rows that are done, by family, seed and strength as planned, with `reason` and `seconds`."""
    files = [_file(folder, case) for seed in config.seeds for case in cases(config, seed)]
    rows = [json.loads(file.read_text("utf-8")) for file in files if file.is_file()]
    return sorted(rows, key=lambda row: row["family"])


def write_bench(config: GateBenchConfig, folder: Path, rows: Sequence[Row], out: Path) -> dict[str, Any]:
    """Write `gate.json` (the rows) and `gate-summary.json` into `out`; returns the summary."""
    summary = summarise_bench(config, rows)
    out.mkdir(parents=True, exist_ok=True)
    plain = [{name: row[name] for name in COLUMNS} for row in rows]
    for name, value in (("gate", plain), ("gate-summary", summary)):
        with naming(out):
            (out / f"{name}.json").write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")
    return summary


def role(row: Row) -> str:
    """What a row counts as: "integrity", "aa", "harmful", "honest", or "neither", which is in no rate."""
    family = row["family"]
    if family.startswith("integrity"):
        return "integrity"
    if family == "aa":
        return "aa"
    if row["true_high"] < HARMFUL:
        return "harmful"
    return "honest" if family.startswith("honest") and row["true_low"] > 0 else "neither"


def summarise_bench(config: GateBenchConfig, rows: Sequence[Row]) -> dict[str, Any]:
    """Rates with their exact 95 % intervals (Clopper & Pearson 1934), by role and by family."""
    by_role = {name: [r for r in rows if role(r) == name] for name in ("harmful", "honest", "aa", "integrity", "neither")}
    harmful, aa = by_role["harmful"], by_role["aa"]
    band = [r for r in harmful if r["true_ndcg_change"] > BAND]
    families = {}
    for name in sorted({r["family"] for r in rows}):
        own = [r for r in rows if r["family"] == name]
        bad = [r for r in own if role(r) == "harmful"]
        families[name] = {
            "rows": len(own),
            "verdicts": {v: sum(r["verdict"] == v for r in own) for v in ("promote", "hold", "reject")},
            "harmful": len(bad),
            "harmful_promoted": [r["strength"] for r in bad if r["verdict"] == "promote"],
        }
    return {
        "rates": {
            "harmful_not_promoted": _rate(harmful, lambda r: r["verdict"] != "promote"),
            "harmful_from_3_to_10_percent_not_promoted": _rate(band, lambda r: r["verdict"] != "promote"),
            "harmful_rejected": _rate(harmful, lambda r: r["verdict"] == "reject"),
            "aa_rejected": _rate(aa, lambda r: r["verdict"] == "reject"),
            "aa_promoted": _rate(aa, lambda r: r["verdict"] == "promote"),
            "honest_promoted": _rate(by_role["honest"], lambda r: r["verdict"] == "promote"),
            "honest_rejected": _rate(by_role["honest"], lambda r: r["verdict"] == "reject"),
            "integrity_caught": _rate(by_role["integrity"], lambda r: r["verdict"] == "reject"),
        },
        "gains_promoted": gains_promoted(rows),
        "rows": {name: len(some) for name, some in by_role.items()},
        "families": families,
        "truth_searches": config.truth_searches,
        "gate_searches": config.gate_searches + config.frozen_searches,
        "seeds": list(config.seeds),
        "simulated": True,
        "seconds": round(sum(r.get("seconds", 0.0) for r in rows), 1),
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "code_version": VERSION,
    }


def gains_promoted(rows: Sequence[Row]) -> dict[str, dict[str, Any] | None]:
    """By the size of an honest candidate's true gain: share promoted in one try, and in one of two.

    Two tries are two trainings of the same phases from the same policy on one platform, which differ by their seed alone: a
    HOLD's next week trains anew from the same champion.
    """
    found: dict[str, dict[str, Any] | None] = {}
    for name, (least, most) in GAINS.items():
        own = [r for r in rows if r["family"].startswith("honest") and least < r["true_ndcg_change"] <= most]
        one = _rate(own, lambda r: r["verdict"] == "promote")
        alike: dict[tuple[Any, ...], list[bool]] = {}
        for row in own:
            alike.setdefault((row["family"], row["seed"], _without_training(row)), []).append(row["verdict"] == "promote")
        tries = [a or b for some in alike.values() for a, b in combinations(some, 2)]
        of_two = sum(tries) / len(tries) if tries else None
        found[name] = None if one is None else {**one, "pairs": len(tries), "of_two": of_two}
    return found


def _without_training(row: Row) -> str:
    """The strength of an honest row, which names its training, without the number of that."""
    return re.sub(r"honest-\d+", "honest", str(row["strength"]))


def _rate(rows: Sequence[Row], counts: Callable[[Row], bool]) -> dict[str, Any] | None:
    if not rows:
        return None
    count = sum(map(counts, rows))
    return {"count": count, "rows": len(rows), **Share.of(count, len(rows)).as_dict()}


def _file(folder: Path, case: Case) -> Path:
    return folder / "rows" / f"{case.name}.json"


def _same_settings(config: GateBenchConfig, folder: Path) -> None:
    """Hold the folder to its settings; platforms may be added."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "settings.json"
    if not file.is_file():
        write_json(file, config.model_dump(mode="json"))
    elif not same_settings({**json.loads(file.read_text("utf-8")), "seeds": config.seeds}, config):
        raise ValueError(f"{folder} holds a run under other settings: give another folder with --out, or remove it")
