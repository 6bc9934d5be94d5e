"""What `corewrite eval conversations` prints."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corewrite.cli.common import say, visible
from corewrite.evaluation.conversations.evaluate import ConversationReport
from corewrite.evaluation.conversations.measure import MODES
from corewrite.evaluation.conversations.metrics import METRICS
from corewrite.evaluation.conversations.summary import ALL, BEST_BASELINE


def print_conversations(console: Console, report: ConversationReport) -> None:
    """A table for each ranker, over all turns; what stands in none is in the file."""
    found = report.figures
    rows = {(r.ranker, r.system, r.mode, r.metric): r for r in found.rows if r.collection == ALL}
    about = next(iter(rows.values()))
    say(
        f"{about.turns} turns of {about.conversations} conversations over {len(report.data.passages)} passages "
        f"({report.data.passed_over} turns passed over: first ones, or without a passage); 95 % intervals"
    )
    if report.data.unknown_earlier:
        say(f"note: {report.data.unknown_earlier} earlier passages are not among the passages: contexts go without them")
    for note in report.notes:
        say(f"note: {note}", fg="yellow")
    for ranker in report.rankers:
        headers = [f"{mode}\n{metric}" for mode in MODES for metric in METRICS] + [f"{mode}\nshare" for mode in MODES]
        table = Table(ranker.name, *headers, box=None, pad_edge=False)
        for system in (*report.rewrites, BEST_BASELINE):
            means = [_shown(rows.get((ranker.name, system, mode, metric))) for mode in MODES for metric in METRICS]
            shares = [_shown(found.share(system, ranker.name, mode)) for mode in MODES]
            table.add_row(escape(visible(system)), *means, *shares)
        console.print(table)
    say("share: of the way in MRR from raw to human")


def _shown(figure: Any) -> str:
    """A figure with its interval; nothing where there is none."""
    if figure is None or figure.value is None:
        return ""
    interval = "" if figure.low is None else f"\n{figure.low:.3f}–{figure.high:.3f}"
    return f"{figure.value:.3f}{interval}"
