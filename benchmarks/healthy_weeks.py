"""What the gate costs where nothing goes wrong: months of `corewrite simulate --weeks`, with a gate and without one.

    corewrite simulate --weeks 22 --out runs/simulate
    python benchmarks/healthy_weeks.py [--run runs/simulate]

Writes benchmarks/results/healthy-weeks.json: `rows` (each week of each arm), `gate` (what the reward and the judge's checks of
the weekly arm said, week by week), `comparisons` of arms over all weeks, and `behind` (the weekly arm against the one without a
gate, as shares of the latter's nDCG@10 and change-query rate).
"""

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from corewrite.studies.layout import FIRST_WEEK, week_name
from corewrite.studies.longitudinal.layout import LongitudinalLayout

RESULTS = Path(__file__).parent / "results" / "healthy-weeks.json"
MEASURES = ("ndcg10", "cqr", "give_up", "judge", "reward", "words", "verdict", "seconds")
CHECKS = ("fused_reward", "judge_ndcg", "judge_ndcg_vs_recent", "risk_sensitive_ndcg", "harm_rate", "worst_slice")
FIGURES = ("verdict", "difference", "low", "high", "margin")


def gate_rows(folder: Path, weeks: int) -> list[dict[str, Any]]:
    """What some checks of the weekly arm's gates said."""
    found = []
    cycles = LongitudinalLayout(folder).run("weekly").root / "cycles"
    for week in range(1, weeks + 1):
        file = cycles / week_name(week + FIRST_WEEK - 1) / "gate.json"
        if file.is_file():  # no training, no gate
            checks = {c["name"]: c for c in json.loads(file.read_text("utf-8"))["checks"]}
            found += [{"week": week, "check": n, **{f: checks[n][f] for f in FIGURES}} for n in CHECKS if n in checks]
    return found


def behind(rows: Sequence[dict[str, Any]], measure: str) -> float:
    """Mean of the weekly arm's weeks over that of the arm without a gate, less 1."""
    weekly, without = (fmean(r[measure] for r in rows if r["arm"] == arm) for arm in ("weekly", "no_gate"))
    return weekly / without - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/simulate"), help="folder of the simulation")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file for the figures")
    arguments = parser.parse_args()
    weeks, about = (json.loads((arguments.run / f"{name}.json").read_text("utf-8")) for name in ("weeks", "summary"))
    rows = [{"week": r["week"], "arm": r["arm"], **{m: r.get(m) for m in MEASURES}} for r in weeks]
    found = {
        "rows": rows,
        "gate": gate_rows(arguments.run, about["weeks"]),
        "comparisons": about["comparisons"],
        "behind": {measure: behind(rows, measure) for measure in ("ndcg10", "cqr")},
        **{name: about[name] for name in ("seed", "verdicts", "seconds", "machine", "code_version")},
        "date": datetime.now(UTC).date().isoformat(),
    }
    arguments.results.write_text(json.dumps(found, allow_nan=False, separators=(",", ":")) + "\n", "utf-8")
    print(f"weekly against no gate: nDCG@10 {found['behind']['ndcg10']:+.2%}, CQR {found['behind']['cqr']:+.2%}")
    print(f"written to {arguments.results}")


if __name__ == "__main__":
    main()
