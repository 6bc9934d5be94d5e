"""`corewrite eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corewrite.cli.common import print_json, progress_console, reported_errors, say, visible

if TYPE_CHECKING:
    from corewrite.evaluation.conversations.evaluate import ConversationReport

EXAMPLES = "Example: `corewrite eval conversations --turns turns.jsonl --passages passages.jsonl`"

app = typer.Typer(help="Measure rewriters on data with known answers.", no_args_is_help=True)


@app.callback()
def eval_() -> None:
    """Measure rewriters on data with known answers."""


@app.command(
    epilog=(
        "Examples: `corewrite eval conversations --turns turns.jsonl --passages passages.jsonl` · "
        "`corewrite eval conversations --turns a.jsonl --turns b.jsonl --passages a-passages.jsonl --passages b-passages.jsonl "
        "--limit 50 --json`"
    )
)
def conversations(
    turns: list[Path] = typer.Option(help="Turns, JSON objects one a line (docs/how-to/evaluate.md). Repeatable."),
    passages: list[Path] = typer.Option(
        help="Passages, JSON objects one a line: id and text. Repeatable; all of them are candidates of every turn."
    ),
    limit: int | None = typer.Option(None, min=1, help="Measure the first turns only, this many."),
    seed: int = typer.Option(0, min=0, help="Of the bootstrap over conversations."),
    out: Path = typer.Option(Path("conversations.json"), help="Where the figures go."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> None:
    """Rank the passages of conversations by each turn's query, by baselines and by a person's rewrite, alone and fused.

    Measured are the turns after the first of a conversation whose passage is known: MRR, nDCG@10 and recall@10 over all
    passages but those shown before, with 95 % intervals by resampling conversations; and shares of the way in MRR from the
    query alone to the person's rewrite.
    """
    from corewrite.domain.extras import require_extras
    from corewrite.evaluation.conversations.bm25 import Bm25Ranker
    from corewrite.evaluation.conversations.evaluate import evaluate_conversations
    from corewrite.evaluation.conversations.reader import read_conversations
    from corewrite.report.progress import ProgressSteps
    from corewrite.storage.durable import make_folder
    from corewrite.storage.journal import write_json

    steps = ProgressSteps(progress_console(quiet=as_json))
    with reported_errors():
        require_extras("eval")
        with steps.step("read the conversations"):
            data = read_conversations(turns, passages, limit=limit)
        with steps.step("index the passages"):
            rankers = [Bm25Ranker([p.text for p in data.passages])]
        report = evaluate_conversations(data, rankers, {}, seed=seed, steps=steps)
        found = report.as_dict()
        make_folder(out.absolute().parent)
        write_json(out, found)
    if as_json:
        print_json(found)
        return
    _print(Console(), report)
    say(f"{out}: all figures, also of each collection")


def _print(console: Console, report: "ConversationReport") -> None:
    """A table for each ranker, over all turns; what stands in no table is in the file."""
    from corewrite.evaluation.conversations.measure import MODES
    from corewrite.evaluation.conversations.metrics import METRICS
    from corewrite.evaluation.conversations.summary import ALL, BEST_BASELINE

    found = report.figures
    rows = {(r.ranker, r.system, r.mode, r.metric): r for r in found.rows if r.collection == ALL}
    about = next(iter(rows.values()))
    console.print(
        f"{about.turns} turns of {about.conversations} conversations over {len(report.data.passages)} passages "
        f"({report.data.passed_over} turns passed over: first ones, or without a passage); 95 % intervals"
    )
    if report.data.unknown_earlier:
        say(f"note: {report.data.unknown_earlier} earlier passages are not among the passages: contexts go without them")
    for ranker in report.rankers:
        headers = [f"{mode}\n{metric}" for mode in MODES for metric in METRICS]
        table = Table(ranker.name, *headers, "alone\nshare of the way", box=None, pad_edge=False)
        for system in report.rewrites:
            cells = [_shown(rows[ranker.name, system, mode, metric]) for mode in MODES for metric in METRICS]
            share = found.share(system, ranker.name)
            table.add_row(escape(visible(system)), *cells, "" if share is None else _shown(share))
        best = found.share(BEST_BASELINE, ranker.name)
        if best is not None:
            table.add_row("best baseline", *[""] * len(headers), _shown(best))
        console.print(table)


def _shown(figure: Any) -> str:
    """A figure with its interval."""
    if figure.value is None:
        return "none"
    interval = "" if figure.low is None else f"\n{figure.low:.3f}–{figure.high:.3f}"
    return f"{figure.value:.3f}{interval}"
