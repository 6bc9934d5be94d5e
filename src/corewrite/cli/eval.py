"""`corewrite eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corewrite.cli.common import open_registry, print_json, progress_console, reported_errors, say, visible

if TYPE_CHECKING:
    from corewrite.evaluation.conversations.evaluate import ConversationReport
    from corewrite.rewriter import Rewriter

EXAMPLES = "Example: `corewrite eval conversations --turns turns.jsonl --passages passages.jsonl --run runs/mine`"

app = typer.Typer(help="Measure rewriters on data with known answers.", no_args_is_help=True)


@app.callback()
def eval_() -> None:
    """Measure rewriters on data with known answers."""


@app.command(
    epilog=(
        "Examples: `corewrite eval conversations --turns turns.jsonl --passages passages.jsonl --run runs/mine` · "
        "`corewrite eval conversations --turns a.jsonl --turns b.jsonl --passages a-passages.jsonl --passages b-passages.jsonl "
        "--limit 50 --json`"
    )
)
def conversations(
    turns: list[Path] = typer.Option(help="Turns, JSON objects one a line (docs/how-to/evaluate.md). Repeatable."),
    passages: list[Path] = typer.Option(
        help="Passages, JSON objects one a line: id and text. Repeatable; all of them are candidates of every turn."
    ),
    run: Path | None = typer.Option(
        None,
        help="Run folder: its champion and its warm start are measured too. Default: baselines and the person's rewrite only.",
    ),
    warm_start: Path | None = typer.Option(
        None, help="Folder of the rewriter that training began from; default: the one that the run keeps."
    ),
    max_new_tokens: int = typer.Option(48, min=2, max=256, help="Length limit of a policy's rewrite, in tokens."),
    limit: int | None = typer.Option(None, min=1, help="Measure the first turns only, this many."),
    seed: int = typer.Option(0, min=0, help="Of the bootstrap over conversations."),
    out: Path | None = typer.Option(
        None, help="Where the figures go; default: conversations.json in the run folder, or here where there is none."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON."),
) -> None:
    """Rank the passages of conversations by each turn's query, by policies, baselines and a person's rewrite.

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
    from corewrite.storage.run_layout import RunLayout

    out = out or (Path("conversations.json") if run is None else RunLayout(run).conversations)
    steps = ProgressSteps(progress_console(quiet=as_json))
    with reported_errors():
        require_extras("eval")
        with steps.step("read the conversations"):
            data = read_conversations(turns, passages, limit=limit)
        policies, notes = _policies(run, warm_start)
        with steps.step("index the passages"):
            rankers = [Bm25Ranker([p.text for p in data.passages])]
        report = evaluate_conversations(
            data, rankers, policies, max_new_tokens=max_new_tokens, notes=notes, seed=seed, steps=steps
        )
        found = report.as_dict()
        make_folder(out.absolute().parent)
        write_json(out, found)
    if as_json:
        print_json(found)
        return
    _print(Console(), report)
    say(f"{out}: all figures, also of each collection")


def _policies(run: Path | None, warm_start: Path | None) -> "tuple[dict[str, Rewriter], list[str]]":
    """The policies that are there by their systems' names, and of the others why they are not.

    Raises:
        ValueError: a run is named that has none of the two.
    """
    from corewrite.cycle.kept_start import NoWarmStartError, load_warm_start
    from corewrite.deployment.load import load_policy
    from corewrite.evaluation.conversations.systems import CHAMPION, WARM_START
    from corewrite.rewriter import load_rewriter

    found: dict[str, Rewriter] = {}
    notes = list[str]()
    if warm_start is not None:
        found[WARM_START] = load_rewriter(warm_start)
    elif run is not None:
        try:
            found[WARM_START] = load_warm_start(run)
        except NoWarmStartError as error:
            notes.append(str(error))
    if run is not None:
        registry = open_registry(run)
        if (champion := registry.champion()) is not None:
            found[CHAMPION] = load_policy(registry, champion.policy)
        else:
            last = registry.decisions()[-1:]
            why = f" (the last decision was {last[0].verdict}: {last[0].reason})" if last else ""
            notes.append(f"{run} has no champion: nothing was promoted yet{why}")
        if not found:
            raise ValueError("; ".join(notes))
    return found, notes


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
    for note in report.notes:
        say(f"note: {note}", fg="yellow")
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
