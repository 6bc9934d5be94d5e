"""`corewrite experiment`."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from corewrite.cli.common import Exit, print_json, progress_console, reported_errors, warn_renamed

if TYPE_CHECKING:
    from corewrite.cli.experiment_settings import ExperimentSections
    from corewrite.experiment.ab.launch_log import LaunchLog

app = typer.Typer(help="Launches: what one needs before it begins, and what it showed.", no_args_is_help=True)

READ_EXAMPLES = (
    "Examples: `corewrite experiment read served --control none --treatment all_stages --share 0.5 -c corewrite.yaml` · "
    "`corewrite experiment read week-1.ndjson.gz week-2.ndjson.gz --control A --treatment B --share 0.5 --json` · "
    "`corewrite experiment read searches.parquet --control control --treatment treatment --share 0.5`"
)
PLAN_EXAMPLES = (
    "Examples: `corewrite experiment plan served --effect 0.02 -c corewrite.yaml` · "
    "`corewrite experiment plan served --control none --effect 0.03 --traffic 0.2 --json > plan.json` · "
    "`corewrite experiment read served --thresholds plan.json --control none --treatment all_stages --share 0.5`"
)
_LOG = typer.Argument(help="UBI files (.ndjson, .gz), folders of them, or one Parquet of searches.")
_CONFIG = typer.Option(
    None, "--config", "-c", help="corewrite.yaml: the champion's ranking decides which queries have the same intent."
)
_CONTROL = typer.Option(None, help="Arm that treatment is compared with, as it was served, such as none.")
_TREATMENT = typer.Option(None, help="Arm whose worth is asked, as it was served, such as all_stages.")
_MARGIN = typer.Option(None, help="Relative rise of give-up that would still do; default 0.05.")
_ALPHA = typer.Option(None, help="Intervals are two-sided at 1 - alpha; default 0.05.")
_THRESHOLDS = typer.Option(
    None, help="JSON with the watch times that satisfy, frozen before: of a plan (--json), or a mined week's about.json."
)
_SINCE = typer.Option(None, help="When the launch began, ISO 8601 or seconds since 1970; default: the log's beginning.")
_UNTIL = typer.Option(None, help="When it ended; what comes after still says how its searches ended.")
_JSON = typer.Option(False, "--json", help="Print as JSON.")


@app.command(epilog=READ_EXAMPLES)
def read(
    log: list[Path] = _LOG,
    control: str | None = _CONTROL,
    treatment: str | None = _TREATMENT,
    share: float | None = typer.Option(None, help="Share of the users of both arms that treatment was meant to get."),
    give_up_margin: float | None = _MARGIN,
    alpha: float | None = _ALPHA,
    thresholds: Path | None = _THRESHOLDS,
    config: Path | None = _CONFIG,
    name: str | None = typer.Option(None, help="Name of the launch; default: its arms."),
    since: str | None = _SINCE,
    until: str | None = _UNTIL,
    as_json: bool = _JSON,
) -> None:
    """Read a launch: the change-query rate over each user's first search whose lists differ between two arms, and give-up.

    Intervals are given for one look at the planned end and for any number of looks. Exit code 0: it counts as a gain; 3: it is
    not shown to; 4: harm is shown; 1: it cannot be read, and why.
    """
    from corewrite.domain.extras import require_extras
    from corewrite.experiment.ab.reading import read_searches
    from corewrite.report.launches import print_reading

    with reported_errors():
        require_extras("report")
        settings = _settings(
            config,
            control=control,
            treatment=treatment,
            share=share,
            give_up_margin=give_up_margin,
            alpha=alpha,
            thresholds=thresholds,
        )
        about = settings.experiment
        if about.control is None or about.treatment is None or about.share is None:
            raise ValueError(
                "say what to compare: --control and --treatment, the arms as they were served, and --share, the share of the "
                "users of both that treatment was meant to get (or the section `experiment` of --config)"
            )
        found = _load(log, settings, since, until)
        against, arm = _as_logged(about.control, found), _as_logged(about.treatment, found)
        reading = read_searches(
            name or f"{arm} against {against}",
            found.searches,
            control=against,
            treatment=arm,
            share=about.share,
            give_up_margin=about.give_up_margin,
            alpha=about.alpha,
        )
    if as_json:
        print_json({**reading.as_dict(), "log": found.as_dict()})
    else:
        print_reading(reading, found.as_dict())
    raise typer.Exit(Exit.OK if reading.launch.counts else Exit.REJECT if reading.harms else Exit.HOLD)


@app.command(epilog=PLAN_EXAMPLES)
def plan(
    log: list[Path] = _LOG,
    effect: float = typer.Option(help="Relative fall of the change-query rate to be shown: 0.02 for 2 %."),
    control: str | None = typer.Option(None, help="Arm whose users tell the rates; default: the log's only one."),
    treatment: str | None = typer.Option(None, help="Arm to compare it with, where the log compares several."),
    share: float | None = typer.Option(None, help="Share of the users of both arms in treatment; default 0.5."),
    traffic: float | None = typer.Option(None, help="Share of all users who take part, both arms together; default 1."),
    give_up_margin: float | None = _MARGIN,
    alpha: float | None = _ALPHA,
    power: float | None = typer.Option(None, help="Probability of showing the effect; default 0.8."),
    thresholds: Path | None = _THRESHOLDS,
    config: Path | None = _CONFIG,
    since: str | None = _SINCE,
    until: str | None = _UNTIL,
    as_json: bool = _JSON,
) -> None:
    """Users and days that a launch needs, by the log's own rates; as JSON with the thresholds to freeze for `read`."""
    from corewrite.domain.extras import require_extras
    from corewrite.experiment.ab.planning import plan_launch
    from corewrite.report.launches import print_plan_of_launch

    with reported_errors():
        require_extras("report")
        settings = _settings(
            config,
            control=control,
            treatment=treatment,
            share=share,
            traffic=traffic,
            give_up_margin=give_up_margin,
            alpha=alpha,
            power=power,
            thresholds=thresholds,
        )
        about = settings.experiment
        found = _load(log, settings, since, until)
        planned = plan_launch(
            found.searches,
            effect=effect,
            control=about.control and _as_logged(about.control, found),
            treatment=about.treatment and _as_logged(about.treatment, found),
            share=0.5 if about.share is None else about.share,
            traffic=about.traffic,
            give_up_margin=about.give_up_margin,
            alpha=about.alpha,
            power=about.power,
        )
    if as_json:
        about_log = found.as_dict()
        print_json({**planned.as_dict(), "thresholds": about_log.pop("thresholds"), "log": about_log})
    else:
        print_plan_of_launch(planned, found.as_dict())


def _settings(config: Path | None, **given: Any) -> "ExperimentSections":
    """The file's settings with what the command line says instead."""
    from corewrite.cli.experiment_settings import ExperimentSections
    from corewrite.domain.config_file import read_config
    from corewrite.experiment.config import ExperimentConfig

    settings = read_config(config, ExperimentSections)
    options = {name: value for name, value in given.items() if value is not None}
    section = ExperimentConfig.model_validate({**settings.experiment.model_dump(), **options})
    return settings.model_copy(update={"experiment": section})


def _as_logged(arm: str, log: "LaunchLog") -> str:
    """An arm as the log names it; logs of `corewrite serve` name arms as today, whatever version wrote them."""
    from corewrite.domain.traffic_split import current_arm

    name, logged = current_arm(arm), log.searches["arm"].unique().to_pylist()
    if name == arm or arm in logged or name not in logged:
        return arm
    warn_renamed(f"arm {arm}", name)
    return name


def _load(log: list[Path], settings: "ExperimentSections", since: str | None, until: str | None) -> "LaunchLog":
    from corewrite.experiment.ab.launch_log import load_launch, load_thresholds
    from corewrite.logs.sealing import load_keys
    from corewrite.report.progress import ProgressSteps

    steps = ProgressSteps(progress_console(quiet=False))
    unseal = None if settings.privacy.keys is None else load_keys(settings.privacy.keys).open_line
    thresholds, ranking, moments = None, None, {"since": _moment(since), "until": _moment(until)}
    if (file := settings.experiment.thresholds) is not None:
        thresholds = load_thresholds(file)
    elif settings.run is not None:
        from corewrite.cycle.mined_week import first_thresholds

        thresholds = first_thresholds(settings.run)
    if settings.run is not None and settings.documents is not None:
        from corewrite.deployment.launch_ranking import champion_overlap

        with steps.step("open the champion's ranking"):
            ranking = champion_overlap(settings.run, settings.documents, settings.ranker)
    return load_launch(log, ranking=ranking, thresholds=thresholds, unseal=unseal, **moments, steps=steps)


def _moment(text: str | None) -> float | None:
    from corewrite.logs import parse_time

    if text is None:
        return None
    with suppress(ValueError):
        return parse_time(float(text))
    return parse_time(text)
