"""The results of training.py and ablation.py as Markdown, for docs/benchmarks.md.

python benchmarks/tables.py
"""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
MEASURES = ("reward", "judge", "ndcg10_all", "ndcg10_clear", "ndcg10_context_needed", "ndcg10_misspelt", "words", "seconds")


def training() -> None:
    print("| measure | ours | peer | unit | ratio | shapes alone | repeats |\n| --- | --- | --- | --- | --- | --- | --- |")
    for row in json.loads((RESULTS / "training.json").read_text("utf-8")):
        work = row["token_work_ratio"]
        if row["ratio"] is None:
            print(f"| `{row['measure']}` | void | {row['peer']:.4g} | {row['unit']} | | | {row['repeats']} |")
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


if __name__ == "__main__":
    training()
    ablation()
