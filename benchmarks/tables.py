"""Results as Markdown: all in benchmarks/results for docs/evidence/benchmarks.md, months for docs/evidence/five-months.md.

python benchmarks/tables.py [runs/simulate]
"""

import json
import sys
from collections import Counter
from pathlib import Path

from corewrite.studies.gate_benchmark.run import role

RESULTS = Path(__file__).parent / "results"
MEASURES = ("reward", "judge", "ndcg10_all", "ndcg10_clear", "ndcg10_context_needed", "ndcg10_misspelt", "words", "seconds")


def training() -> None:
    print("| measure | ours | peer | unit | ratio | shapes alone | repeats |\n| --- | --- | --- | --- | --- | --- | --- |")
    for row in json.loads((RESULTS / "training.json").read_text("utf-8")):
        work = row["token_work_ratio"]
        if row["ratio"] is None:
            print(f"| `{row['measure']}` | not reached | {row['peer']:.4g} | {row['unit']} | | | {row['repeats']} |")
            continue
        print(
            f"| `{row['measure']}` | {row['ours']:.4g} | {row['peer']:.4g} | {row['unit']} | **{row['ratio']:.3g}** | "
            f"{'' if work is None else f'{work:.3g}'} | {row['repeats']} |"
        )


def ablation() -> None:
    file = RESULTS / "ablation.json"
    if not file.is_file():
        return
    paired = ("reward", "ndcg10_all")
    head = [*(f"{m}, change" for m in paired), *MEASURES]
    print(f"\n| variant | {' | '.join(head)} |\n| --- |{' --- |' * len(head)}")
    for row in json.loads(file.read_text("utf-8"))["rows"]:
        cells = [
            f"{row[m]['mean']:.4g}" + ("" if row[m]["sd"] is None else f" ± {row[m]['sd']:.2g}") for m in MEASURES
        ]  # fmt: skip
        changes = [row["against_default"][m] for m in paired]
        change = [f"{c['mean']:+.4f}" + ("" if c["sd"] is None else f" ± {c['sd']:.2g}") for c in changes]
        print(f"| {row['variant']} | {' | '.join((*change, *cells))} |")


def own_ranker() -> None:
    file = RESULTS / "own_ranker.json"
    if not file.is_file():
        return
    slices = ("all", "clear", "context_needed", "misspelt")
    heads = (
        "seed",
        "rewarded by",
        "phases",
        "log R",
        "judge",
        *slices,
        "changed and unsatisfied",
        "gave up",
        "words",
        "own minus it, nDCG@10",
    )
    print(f"\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for seed, found in sorted(json.loads(file.read_text("utf-8"))["seeds"].items()):
        for name, row in found["systems"].items():
            against = found["own_minus"].get(name)
            cells = [
                seed, name, row.get("phases", ""), f"{row['reward']:.4f}", f"{row['judge']:.4f}",
                *(f"{row['ndcg10'][s]:.4f}" for s in slices), f"{row['changed_unsatisfied']:.4f}", f"{row['gave_up']:.4f}",
                f"{row['words']:.2f}", "" if against is None else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*against),
            ]  # fmt: skip
            print(f"| {' | '.join(map(str, cells))} |")


def ranker() -> None:
    file = RESULTS / "ranker.json"
    if not file.is_file():
        return
    names = ("sample", "score", "optimise", "one_after_another", "phase", "bound", "ratio")
    print(f"\n| ranker | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    for kind, row in json.loads(file.read_text("utf-8"))["rankers"].items():
        cells = [f"{row[n]['median']:.2f} ({row[n]['least']:.2f}–{row[n]['most']:.2f})" for n in names]
        print(f"| {kind} | {' | '.join(cells)} |")


def gate() -> None:
    rows = json.loads((RESULTS / "gate.json").read_text("utf-8"))
    about = json.loads((RESULTS / "gate-summary.json").read_text("utf-8"))
    print("\n| rate | | 95 % interval |\n| --- | --- | --- |")
    for name, rate in about["rates"].items():
        if rate is not None:
            count = f"{rate['count']} of {rate['rows']}, {rate['share']:.1%}"
            print(f"| {name} | {count} | {rate['low']:.1%} to {rate['high']:.1%} |")
    heads = ("family", "rows", "true change", "harmful", "promote / hold / reject", "caught by")
    print(f"\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name, family in about["families"].items():
        own = [row for row in rows if row["family"] == name]
        change = sorted(row["true_ndcg_change"] for row in own)
        verdicts = " / ".join(str(family["verdicts"][v]) for v in ("promote", "hold", "reject"))
        caught = Counter(c for row in own for c in row["caught_by"].split(", ") if c).most_common(3)
        print(
            f"| {name} | {len(own)} | {change[0]:+.1%} to {change[-1]:+.1%} | {family['harmful']} | {verdicts} | "
            f"{', '.join(f'{c} {n}' for c, n in caught)} |"
        )
    for row in rows:
        if role(row) == "harmful" and row["verdict"] == "promote":
            print("- promoted though harmful:", json.dumps(row))


def platform_table() -> None:
    file = RESULTS / "platform_table.json"
    if not file.is_file():
        return
    found = json.loads(file.read_text("utf-8"))
    systems = list(found["pooled"]["ndcg10"]["all"])
    print(f"\n| seeds | slice | searches | {' | '.join(systems)} |\n| --- | --- | --- |{' --- |' * len(systems)}")
    rows = [*found["by_seed"], found["pooled"]]
    for row in rows:
        for name, values in row["ndcg10"].items():
            cells = [
                ", ".join(map(str, row["seeds"])),
                name,
                f"{row['searches'][name]:,}",
                *(f"{values[s]:.3f}" for s in systems),
            ]
            print(f"| {' | '.join(cells)} |")
    print(
        "\n| seeds | best baseline | champion over it | recoverable: warm start | champion |\n| --- | --- | --- | --- | --- |"
    )
    for row in rows:
        over, shares = row["over_best_baseline"], row["recoverable_share"]
        cells = [f"{over['value']:.3f} [{over['low']:.3f}, {over['high']:.3f}]"]
        cells += ["{value:.0%} [{low:.0%}, {high:.0%}]".format(**shares[name]) for name in ("warm_start", "champion")]
        print(f"| {', '.join(map(str, row['seeds']))} | {row['best_baseline']} | {' | '.join(cells)} |")


def serving() -> None:
    print("\n| measure | ours | without the rewriter | unit | target |\n| --- | --- | --- | --- | --- |")
    for row in json.loads((RESULTS / "serving.json").read_text("utf-8")):
        peer = "" if row["peer"] is None else f"{row['peer']:.4g}"
        print(f"| `{row['measure']}` | {row['ours']:.4g} | {peer} | {row['unit']} | {row.get('target', '')} |")
    print("\n| fault | searches | failed | neutral | recovered after |\n| --- | --- | --- | --- | --- |")
    for row in json.loads((RESULTS / "faults.json").read_text("utf-8"))["rows"]:
        print(f"| {row['fault']} | {row['searches']} | {row['failed']} | {row['neutral']} | {row['recovery_s']:.2f} s |")


def incidents() -> None:
    file = RESULTS / "incidents.json"
    if not file.is_file():
        return
    value = json.loads(file.read_text("utf-8"))
    heads = ("without gate", "with gate", "weeks", "detected", "by", "weeks to recovery", "weeks wrongly held")
    print(f"\n| incident | kind | strength | seed | {' | '.join(heads)} |\n|{' --- |' * (4 + len(heads))}")
    shown = ("detected_week", "caught_by", "weeks_to_recovery", "weeks_wrongly_held")
    for row in value["rows"]:
        damages = ["" if row[name] is None else f"{row[name]:+.1%}" for name in ("damage_without_gate", "damage_with_gate")]
        cells = [row["incident"], row["kind"], f"{row['strength']:g}", row["seed"], *damages]
        cells.append(f"{row['weeks_without_gate']} / {row['weeks_with_gate']}")
        cells += ["" if row[name] is None else row[name] for name in shown]
        print(f"| {' | '.join(map(str, cells))} |")
    print(f"\n| learned hack | strength | seed | week | log R | true nDCG@10 | the ranker's probe |\n|{' --- |' * 7}")
    for row in value["hacks"]:
        reward = "{change:+.4f} [{low:+.4f}, {high:+.4f}]".format(**row["reward"])
        truth = "{change:+.1%} [{low:+.1%}, {high:+.1%}]".format(**row["ndcg10"])
        cells = [row["incident"], f"{row['strength']:g}", row["seed"], row["week"], reward, truth, row["probe"]]
        print(f"| {' | '.join(map(str, cells))} |")
    print(f"\n{value['date']}, {value['machine']}" + ("" if value["whole"] else "; not all of it"))


def months(folder: Path) -> None:
    rows = json.loads((folder / "weeks.json").read_text("utf-8"))
    about = json.loads((folder / "summary.json").read_text("utf-8"))
    by = {(row["week"], row["arm"]): row for row in rows}
    arms = ("weekly", "never", "no_gate", "holdback")
    shown = (("ndcg10", 3, arms), ("cqr", 3, arms), ("give_up", 3, ("weekly", "never", "holdback")), ("reward", 4, ("weekly",)))
    shown = (*shown, ("judge", 3, ("weekly", "no_gate")), ("words", 2, ("weekly", "no_gate")))
    heads = [f"{m}: {' / '.join(some)}" for m, _, some in shown]
    print(f"| week | weekly | no gate | {' | '.join(heads)} |")
    print(f"| --- | --- | --- |{' --- |' * len(shown)}")
    for week in sorted({row["week"] for row in rows}):
        cells = [" / ".join(f"{by[week, arm][m]:.{digits}f}" for arm in some) for m, digits, some in shown]
        print(f"| {week} | {by[week, 'weekly']['verdict']} | {by[week, 'no_gate']['verdict']} | {' | '.join(cells)} |")
    print("\n| comparison | difference | 95 % interval | weeks |\n| --- | --- | --- | --- |")
    for c in about["comparisons"]:
        print(f"| {c['name']} | {c['difference']:+.4f} | {c['low']:+.4f} to {c['high']:+.4f} | {c['weeks']} |")
    for name in ("rejections", "alarms"):
        print(f"\n{name}:")
        for found in about[name]:
            print("-", json.dumps(found))
    below = [row for row in about["below_holdback"] if row["high"] < 0]
    print(f"\npromoted {about['promoted_share']:.0%} {about['verdicts']}; below the holdback {below}; {about['seconds']} s")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        months(Path(sys.argv[1]))
    else:
        for table in (training, ablation, own_ranker, ranker, gate, platform_table, serving, incidents):
            table()
