"""`corewrite gate`."""

import json
from pathlib import Path

import typer

from corewrite.cli.common import VERDICT_EXITS, print_json, progress_console, reported_errors, say
from corewrite.storage.durable import make_private, naming

app = typer.Typer(help="The promotion gate: compare, calibrate.", no_args_is_help=True)

EXAMPLES = (
    "Examples: `corewrite gate run 3f9a1c -c corewrite.yaml` · `corewrite gate run ./my-rewriter --week week-07 --json` · "
    "`corewrite gate calibrate -c corewrite.yaml --retrains 10`"
)
_CONFIG = typer.Option(Path("corewrite.yaml"), "--config", "-c", help="Settings of the cycle, YAML.")


@app.command(epilog=EXAMPLES)
def run(
    candidate: str = typer.Argument(help="Hash (or its beginning) of a policy in the registry, or folder of a rewriter."),
    config: Path = _CONFIG,
    week: str | None = typer.Option(None, help="Week whose gate searches are used; default: the newest mined."),
    out: Path | None = typer.Option(None, help="Folder for gate.json and gate.html; default: the run folder's `gate`."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Compare a candidate with the champion. Decides nothing in the registry. Exit code 0 promote, 3 hold, 4 reject."""
    from corewrite.cycle.config_sections import load_cycle_config
    from corewrite.cycle.gate_run import gate_candidate
    from corewrite.deployment.inputs import check_inputs
    from corewrite.report import print_gate, render_gate
    from corewrite.report.progress import ProgressSteps

    with reported_errors():
        settings = load_cycle_config(config)
        folder = out or settings.run / "gate"
        check_inputs(writes=[folder], extras=["train", "report"])
        result, about = gate_candidate(settings, candidate, week, steps=ProgressSteps(progress_console(quiet=False)))
        folder.mkdir(parents=True, exist_ok=True)
        value = {**about, **result.as_dict()}
        with naming(folder):
            make_private(folder / "gate.json").write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")
            make_private(folder / "gate.html").write_text(render_gate(result.as_dict(), about), "utf-8")
    if as_json:
        print_json(value)
    else:
        print_gate(result.as_dict())
        say(f"page     {folder / 'gate.html'}")
    raise typer.Exit(VERDICT_EXITS[result.verdict])


@app.command("calibrate", epilog=EXAMPLES)
def calibrate_command(
    config: Path = _CONFIG,
    retrains: int = typer.Option(10, min=10, help="Trainings of the champion with other seeds."),
    week: str | None = typer.Option(None, help="Week whose training is repeated; default: the one that made the champion."),
    out: Path = typer.Option(
        Path("margins.yaml"), help="File to freeze the margins in; one that is there is not written over."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Set the gate's margins from retrains that differ by their seed alone, and freeze them. Takes as long as the trainings."""
    from corewrite.cycle.config_sections import load_cycle_config
    from corewrite.cycle.gate_run import calibrate_margins
    from corewrite.deployment.inputs import check_inputs
    from corewrite.gate.margins_file import save_margins
    from corewrite.report.progress import ProgressSteps

    with reported_errors("it begins anew"):
        if out.exists():
            raise FileExistsError(f"{out} is there: frozen margins are not written over; name another file with --out")
        check_inputs(writes=[out.parent], extras=["train"])
        found = calibrate_margins(load_cycle_config(config), retrains, week, steps=ProgressSteps(progress_console(quiet=False)))
        save_margins(found, out)
    if as_json:
        print_json(found.as_dict())
        return
    for name, margin in found.margins.as_dict().items():
        note = "capped by the business limit" if name in found.capped else ""
        say(f"{name:<28} {margin:.5g}  {note}")
    share = found.joint_pass
    passed = f"{share.share:.0%} of {found.retrains} retrains pass all guardrails ({share.low:.0%} to {share.high:.0%})"
    say(passed, f"frozen in {out}; name it as `margins` in {config}")


@app.command(
    epilog="Examples: `corewrite gate bench` (three hours; resumable) · `corewrite gate bench --minutes 30 --seeds 0` · "
    "`corewrite gate bench --families stuffing,aa` · `corewrite gate bench --miniature --out /tmp/bench --results /tmp/bench`"
)
def bench(
    out: Path = typer.Option(Path("runs/gate-bench"), help="Folder for platforms, policies and rows; a cut-off run goes on."),
    results: Path | None = typer.Option(None, help="Folder for gate.json and gate-summary.json; default: OUT."),
    families: str = typer.Option("", help="Only these families, or those that begin so; commas between."),
    seeds: str = typer.Option(
        "",
        help="Platforms, commas between; default: 0,1,2. Processes may share OUT with a seed each: the same command with all "
        "seeds then makes the summary.",
    ),
    minutes: float | None = typer.Option(None, min=0, help="After which no further row begins."),
    miniature: bool = typer.Option(False, help="Minutes instead of hours; its figures mean nothing."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Candidates made bad, better and equal on purpose on the simulated platform: how often does the gate decide rightly?"""
    from corewrite.domain.extras import require_extras
    from corewrite.report.progress import ProgressSteps
    from corewrite.studies.gate_benchmark.config import GateBenchConfig, miniature_bench
    from corewrite.studies.gate_benchmark.run import run_bench, write_bench

    with reported_errors("it goes on with the first row that is missing"):
        try:
            numbers = tuple(dict.fromkeys(int(s) for s in seeds.split(",") if s.strip()))
        except ValueError as error:
            raise typer.BadParameter(f"--seeds {seeds!r}: give whole numbers with commas between") from error
        require_extras("train")
        config = miniature_bench() if miniature else GateBenchConfig()
        if numbers:
            config = config.model_copy(update={"seeds": numbers})
        rows = run_bench(
            config,
            out,
            steps=ProgressSteps(progress_console(quiet=False)),
            minutes=minutes,
            families=[f.strip() for f in families.split(",") if f.strip()],
        )
        summary = write_bench(config, out, rows, results or out)
    if as_json:
        print_json(summary)
        return
    for name, rate in summary["rates"].items():
        found = "no row yet" if rate is None else f"{rate['count']}/{rate['rows']}  {rate['low']:.1%} to {rate['high']:.1%}"
        say(f"{name.replace('_', ' '):<44} {found}")
    say(f"rows     {(results or out) / 'gate.json'}")
