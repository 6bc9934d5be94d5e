"""`corewrite plan`."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from corewrite.cli.common import print_json, progress_console, reported_errors

if TYPE_CHECKING:
    from corewrite.capacity.plan import Workload
    from corewrite.capacity.rates import Rates

_PROMPT, _REWRITE = 48, 6

EXAMPLES = (
    "Examples: `corewrite plan --instances 5000000 --run runs/demo --phases 20` · "
    "`corewrite plan --instances 5000000 --model ./my-causal-lm --prompt-tokens 256 --gpus 8 --price-per-hour 2.5 "
    "--seconds-per-reward 0.0002 --speedup 150` · `corewrite plan --instances 5000000 --run runs/demo --json > plan.json` · "
    "`corewrite plan --instances 9000000 --rates plan.json`"
)


def plan(
    instances: int = typer.Option(min=1, help="Training instances of a weekly cycle."),
    run: list[Path] = typer.Option(
        [], help="Measure on this run: its folder, or the `training` folder in it. Repeatable; the first gives the workload."
    ),
    rates: Path | None = typer.Option(None, help="Take the measured rates of an earlier plan, as --json printed it."),
    calibrate: bool = typer.Option(False, help="Measure now: two short trainings on made-up instances."),
    model: str | None = typer.Option(
        None, help="Calibrate with this causal LM (path or name); default: a small decoder with random weights."
    ),
    gpus: int | None = typer.Option(None, min=1, help="GPUs that share the work; default: the measured machine as it is."),
    price_per_hour: float | None = typer.Option(None, min=0, help="Price of one GPU (or of the machine), any currency."),
    speedup: float | None = typer.Option(
        None, help="How many times faster than the measured device the planned one is. A guess of yours: the plan repeats it."
    ),
    phases: int | None = typer.Option(None, min=1, help="Phases, so syncs, of the cycle; default: as measured."),
    samples: int | None = typer.Option(None, min=1, help="N, rewrites sampled per instance; default: as measured."),
    k: int | None = typer.Option(None, min=1, help="Pairs per instance at most; default: as measured."),
    prompt_tokens: int | None = typer.Option(
        None, min=1, help=f"Mean tokens of a prompt; default: as measured (calibration: {_PROMPT})."
    ),
    rewrite_tokens: int | None = typer.Option(
        None, min=2, help=f"Mean tokens of a rewrite, its end included; default: as measured (calibration: {_REWRITE})."
    ),
    seconds_per_reward: float | None = typer.Option(
        None, min=0, help="What a worker takes for the reward of one rewrite; default: as measured."
    ),
    workers: int | None = typer.Option(None, min=1, help="Calls of the reward at the same time; default: as measured."),
    as_json: bool = typer.Option(False, "--json", help="Print plan, workload and rates as JSON."),
) -> None:
    """Hours, cost and bytes of a weekly training cycle, step by step, from rates that were measured."""
    from corewrite.capacity.plan import plan as plan_cycle
    from corewrite.report.terminal import print_plan

    if (bool(run) + (rates is not None) + (calibrate or model is not None)) != 1:
        raise typer.BadParameter("say where rates come from: one of --run, --rates, and --model or --calibrate to measure now")
    with reported_errors():
        if run:
            measured, workload = _of_runs(run)
        elif rates is not None:
            measured, workload = _saved(rates)
        else:
            _refuse_unmeasured(gpus, speedup, seconds_per_reward)
            measured, workload = _calibrated(model, prompt_tokens or _PROMPT, rewrite_tokens or _REWRITE, samples, k)
        given: dict[str, Any] = {"phases": phases, "num_generations": samples, "k": k, "workers": workers}
        workload = replace(workload, instances=instances, **{name: value for name, value in given.items() if value is not None})
        if prompt_tokens is not None:
            workload = workload.with_prompt_tokens(prompt_tokens)
        if rewrite_tokens is not None:
            workload = workload.with_rewrite_tokens(rewrite_tokens)
        if seconds_per_reward is not None:
            measured = replace(measured, scored=seconds_per_reward, workers=1)
        found = plan_cycle(measured, workload, gpus=gpus, price_per_hour=price_per_hour, speedup=speedup)
    if as_json:
        print_json({**found.as_dict(), "rates": asdict(measured)})
    else:
        print_plan(found)


def _of_runs(folders: list[Path]) -> "tuple[Rates, Workload]":
    from corewrite.capacity.plan import build_workload
    from corewrite.capacity.profile import read_run
    from corewrite.capacity.rates import fit

    runs = [read_run(folder) for folder in folders]
    return fit(runs), build_workload(runs[0])


def _saved(file: Path) -> "tuple[Rates, Workload]":
    from corewrite.capacity.plan import Workload
    from corewrite.capacity.rates import PlanError, Rates
    from corewrite.training.config import present_names

    try:
        found = json.loads(file.read_text("utf-8"))
        return Rates(**{**found["rates"], "notes": tuple(found["rates"]["notes"])}), Workload(
            **present_names(found["workload"])
        )
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise PlanError(f"{file} is no plan of this version: write one with `corewrite plan ... --json`") from error


def _refuse_unmeasured(gpus: int | None, speedup: float | None, seconds_per_reward: float | None) -> None:
    """What a plan would refuse in the end is refused before the wait."""
    from corewrite.capacity.plan import refuse_unmeasured
    from corewrite.rewriter.artifact import best_device

    device = best_device().type
    refuse_unmeasured("this machine", device, rewarded=seconds_per_reward is not None, gpus=gpus, speedup=speedup)


def _calibrated(
    model: str | None, prompt_tokens: int, rewrite_tokens: int, samples: int | None, k: int | None
) -> "tuple[Rates, Workload]":
    from corewrite.capacity.plan import build_workload
    from corewrite.capacity.profile import calibrate, synthetic_decoder
    from corewrite.capacity.rates import fit
    from corewrite.report.progress import ProgressSteps
    from corewrite.rewriter import load_rewriter
    from corewrite.training import TrainingConfig

    defaults = TrainingConfig()
    with ProgressSteps(progress_console(quiet=False)).step("calibrate: two short trainings") as progress:
        runs = calibrate(
            synthetic_decoder() if model is None else load_rewriter(model),
            prompt_tokens=prompt_tokens,
            rewrite_tokens=rewrite_tokens,
            samples=samples or defaults.num_generations,
            k=k or defaults.k,
            progress=progress,
        )
    # A run's phases, not the calibration's.
    return fit(runs), replace(build_workload(runs[0]), instances=defaults.phases, phases=defaults.phases)
