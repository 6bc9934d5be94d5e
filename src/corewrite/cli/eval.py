"""`corewrite eval`."""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from corewrite.cli.common import open_registry, print_json, progress_console, reported_errors, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corewrite.domain.steps import Steps
    from corewrite.evaluation.conversations.ranker import PassageRanker
    from corewrite.evaluation.conversations.records import ConversationSet
    from corewrite.relevance.backends.calibration import ScoreCalibration

EXAMPLES = (
    "Examples: `corewrite eval conversations --turns turns.jsonl --passages passages.jsonl --run runs/mine` · "
    "`corewrite eval calibrate --turns train.jsonl --passages passages.jsonl --run runs/mine`"
)

app = typer.Typer(help="Measure rewriters on data with known answers.", no_args_is_help=True)

_TURNS = typer.Option(help="Turns, JSON objects one a line (docs/how-to/evaluate.md). Repeatable.")
_PASSAGES = typer.Option(
    help="Passages, JSON objects one a line: id and text. Repeatable; all of them are candidates of every turn."
)
_MINILM = typer.Option(
    None, help="Folder of all-MiniLM-L6-v2, or of another encoder of sentences by the mean of their tokens: a second ranker."
)
_JSON = typer.Option(False, "--json", help="Print what was found as JSON.")


@app.command(
    epilog=(
        "Examples: `corewrite eval conversations --turns turns.jsonl --passages passages.jsonl --run runs/mine` · "
        "`corewrite eval conversations --turns a.jsonl --turns b.jsonl --passages passages.jsonl --limit 50 --json` · "
        "`corewrite eval conversations --turns turns.jsonl --passages passages.jsonl --minilm models/minilm --export trec`"
    )
)
def conversations(
    turns: list[Path] = _TURNS,
    passages: list[Path] = _PASSAGES,
    run: Path | None = typer.Option(
        None, help="Run folder: its champion and its warm start are measured too. Default: baselines and the person's rewrite."
    ),
    warm_start: Path | None = typer.Option(
        None, help="With --run: folder of the rewriter that training began from; default: the one that the run keeps."
    ),
    minilm: Path | None = _MINILM,
    spec: Path | None = typer.Option(
        None, help="Fusion spec, YAML, whose finerank fuses by the signal `relevance`; default: the packaged one, no prior."
    ),
    calibration: Path | None = typer.Option(
        None, help="File of `corewrite eval calibrate`; default: the run's, or what was fitted on CAsT 2021 and iKAT 2023."
    ),
    max_new_tokens: int = typer.Option(64, min=2, max=256, help="Length limit of a policy's rewrite, in tokens."),
    limit: int | None = typer.Option(None, min=1, help="Measure the first turns only, this many."),
    seed: int = typer.Option(0, min=0, help="Of the bootstrap over conversations."),
    out: Path | None = typer.Option(
        None, help="Where the figures go; default: conversations.json in the run folder, or here where there is none."
    ),
    export: Path | None = typer.Option(None, help="Folder for TREC run files, qrels.txt and rewrites.jsonl."),
    export_depth: int = typer.Option(100, min=1, help="Passages of a turn in a run file."),
    as_json: bool = _JSON,
) -> None:
    """Rank the passages of conversations by policies, baselines and a person's rewrite of each turn.

    Measured are the turns after the first of a conversation whose passage is known: MRR, nDCG@10 and recall@10 over all
    passages but those shown before, with 95 % intervals by resampling conversations; and shares of the way in MRR from the
    query alone to the person's rewrite.
    """
    from corewrite.cycle.run_policies import RunPolicies, load_run_policies
    from corewrite.domain.extras import require_extras
    from corewrite.evaluation.conversations.calibrate import load_calibrations
    from corewrite.evaluation.conversations.evaluate import evaluate_conversations
    from corewrite.evaluation.conversations.fused import DEFAULT_STAGE, stage_of
    from corewrite.evaluation.conversations.reader import read_conversations
    from corewrite.evaluation.conversations.trec import TrecWriter, write_rewrites
    from corewrite.fusion import load_spec
    from corewrite.report.progress import ProgressSteps
    from corewrite.storage.durable import make_folder
    from corewrite.storage.journal import write_json
    from corewrite.storage.run_layout import RunLayout

    if warm_start is not None and run is None:
        raise typer.BadParameter("it goes with --run", param_hint="--warm-start")
    out = out or (Path("conversations.json") if run is None else RunLayout(run).conversations)
    steps = ProgressSteps(progress_console(quiet=as_json))
    with reported_errors():
        require_extras("eval")
        stage = DEFAULT_STAGE if spec is None else stage_of(load_spec(spec))
        if calibration is None and run is not None and RunLayout(run).conversation_calibration.is_file():
            calibration = RunLayout(run).conversation_calibration
        calibrations = {} if calibration is None else load_calibrations(calibration, _RANKERS)
        with steps.step("read the conversations"):
            data = read_conversations(turns, passages, limit=limit)
        known = RunPolicies({}, ()) if run is None else load_run_policies(run, open_registry(run), warm_start)
        rankers = _rankers(data, minilm, calibrations, steps)
        notes = [*known.missing, *([] if minilm else ["MiniLM is not measured: name its folder with --minilm"])]
        with nullcontext() if export is None else TrecWriter(export, data, export_depth) as writer:
            report = evaluate_conversations(
                data,
                rankers,
                known.policies,
                max_new_tokens=max_new_tokens,
                notes=notes,
                stage=stage,
                seed=seed,
                steps=steps,
                observe=(lambda scored: None) if writer is None else writer.add,
            )
        if export is not None:
            write_rewrites(export, data, report.texts)
        found = report.as_dict()
        make_folder(out.absolute().parent)
        write_json(out, found)
    if as_json:
        print_json(found)
        return
    from corewrite.cli.eval_table import print_conversations

    print_conversations(Console(), report)
    say(f"{out}: all figures, also of each collection")
    if export is not None:
        say(f"{export}: run files, qrels.txt, rewrites.jsonl")


@app.command(
    epilog="Example: `corewrite eval calibrate --turns train.jsonl --passages passages.jsonl --run runs/mine --minilm ./minilm`"
)
def calibrate(
    turns: list[Path] = _TURNS,
    passages: list[Path] = _PASSAGES,
    run: Path | None = typer.Option(
        None, help="Run folder that is to hold the calibration, for `corewrite eval conversations`."
    ),
    out: Path | None = typer.Option(None, help="File to write; default: conversation-calibration.json in the run folder."),
    minilm: Path | None = _MINILM,
    as_json: bool = _JSON,
) -> None:
    """Fit what makes probabilities of the rankers' scores, for fusion, on conversations that are not measured on."""
    from corewrite.domain.extras import require_extras
    from corewrite.evaluation.conversations.calibrate import fit_calibration
    from corewrite.evaluation.conversations.reader import read_conversations
    from corewrite.report.progress import ProgressSteps
    from corewrite.storage.durable import make_folder
    from corewrite.storage.journal import write_json
    from corewrite.storage.run_layout import RunLayout

    if out is None and run is None:
        raise typer.BadParameter("say where the calibration goes: --run or --out")
    file = out or RunLayout(run or Path()).conversation_calibration
    steps = ProgressSteps(progress_console(quiet=as_json))
    with reported_errors():
        require_extras("eval")
        with steps.step("read the conversations"):
            data = read_conversations(turns, passages)
        rankers = _rankers(data, minilm, {}, steps)
        with steps.step("calibrate"):
            fitted = {ranker.name: asdict(fit_calibration(data, ranker)) for ranker in rankers}
        make_folder(file.absolute().parent)
        write_json(file, fitted)
    if as_json:
        print_json({"file": str(file), "turns": len(data.turns), "calibrations": fitted})
        return
    for name, numbers in fitted.items():
        say(f"{name}: p = sigmoid({numbers['slope']:.4g} score {numbers['offset']:+.4g}), {len(data.turns)} turns")
    say(f"written to {file}")


_RANKERS = ("bm25", "minilm")


def _rankers(
    data: "ConversationSet", minilm: Path | None, calibrations: "Mapping[str, ScoreCalibration]", steps: "Steps"
) -> "list[PassageRanker]":
    """BM25, and an encoder where one is named."""
    from corewrite.evaluation.conversations.bm25 import BM25_CALIBRATION, Bm25Ranker
    from corewrite.evaluation.conversations.encoder import MINILM_CALIBRATION, EncoderRanker

    texts = [p.text for p in data.passages]
    with steps.step("index the passages"):
        found: list[PassageRanker] = [Bm25Ranker(texts, calibration=calibrations.get("bm25", BM25_CALIBRATION))]
    if minilm is not None:
        with steps.step("encode the passages") as progress:
            encoder = EncoderRanker(
                minilm, texts, calibration=calibrations.get("minilm", MINILM_CALIBRATION), progress=progress
            )
        found.append(encoder)
    return found
