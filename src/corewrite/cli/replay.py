"""`corewrite replay`."""

from pathlib import Path

import typer

from corewrite.cli.common import Exit, print_json, progress_console, reported_errors, say
from corewrite.cli.serve_settings import CONFIG_OPTION, RUN_OPTION, read_serve_settings

REPLAY_EXAMPLES = (
    "Examples: `corewrite replay runs/demo/log --run runs/demo` · `corewrite replay ubi.ndjson --config corewrite.yaml` · "
    "`corewrite replay production.ndjson --config corewrite.yaml` · `corewrite replay production.ndjson --spec fusion.yaml`"
)


def replay(
    log: Path = typer.Argument(
        help="UBI log, a file or a folder of them: of the server, or of your own engine with query_attributes.ranking "
        "(docs/how-to/plug-in.md)."
    ),
    run: Path | None = RUN_OPTION,
    config: Path | None = CONFIG_OPTION,
    spec: Path | None = typer.Option(
        None, help="Fusion spec, for a log of your own engine; default: the settings' ranker.spec."
    ),
    least: float = typer.Option(0.999, min=0, max=1, help="Exit code 1 where the share that agrees is lower."),
    as_json: bool = typer.Option(False, "--json", help="Print what was found as JSON."),
) -> None:
    """Recompute logged searches: the share that agrees within 1e-6 says whether training sees what serving does.

    A log of `corewrite serve` is recomputed from the models on. A log of your own engine, where no search is of
    `corewrite serve`, holds signals, factors and scores: there the fusion spec is checked on the logged signals.
    """
    from dataclasses import asdict

    with reported_errors():
        from corewrite.deployment.replay_logged import has_rankings

        if has_rankings(log):
            _replay_rankings(log, config, spec, least, as_json)
            return
        if spec is not None:
            raise ValueError(
                f"{log} holds no query_attributes.ranking, or searches of `corewrite serve`, which name their own specs: "
                "leave --spec out"
            )
        from corewrite.deployment.documents import open_documents
        from corewrite.deployment.open import RankerOpener
        from corewrite.deployment.replay import replay_log
        from corewrite.domain.config_file import read_config
        from corewrite.logs.privacy import PrivacySections
        from corewrite.logs.sealing import load_keys
        from corewrite.registry import Registry
        from corewrite.report.progress import ProgressSteps

        settings = read_serve_settings(run, config)
        keys = None if config is None else read_config(config, PrivacySections).privacy.keys
        steps = ProgressSteps(progress_console(quiet=as_json))
        documents = open_documents(settings.documents, settings.what_ranks, steps)
        with steps.step("replay") as progress:
            opener = RankerOpener(settings.what_ranks, documents, settings_rank=settings.relevance is not None)
            unseal = None if keys is None else load_keys(keys).open_line
            found = replay_log(log, Registry(settings.registry), opener, unseal=unseal, progress=progress)
    if as_json:
        print_json({"log": "served", **asdict(found)})
    else:
        f = found.factors
        say(
            f"{f.share_agreeing:.4%} of {f.compared} factors agree within 1e-6 (largest difference {f.worst:.2g}); "
            f"{found.same_lists} of {found.searches} lists are the same; "
            f"{found.passed_over} other lines (events, searches without texts)"
        )
        for name, one in sorted(found.by_factor.items(), key=lambda x: x[1].share_agreeing):
            if one.share_agreeing < 1:
                say(f"  {name}: {one.share_agreeing:.4%} of {one.compared}, largest difference {one.worst:.2g}")
    if found.factors.share_agreeing < least:
        raise typer.Exit(Exit.FAILED)


def _replay_rankings(log: Path, config: Path | None, spec_file: Path | None, least: float, as_json: bool) -> None:
    """Check a fusion spec on the rankings that the user's own engine logged.

    Raises:
        typer.Exit: less agrees than `least`.
        ValueError: nothing names the spec, or the log cannot be used.
    """
    from dataclasses import asdict

    from corewrite.deployment.replay_logged import replay_rankings
    from corewrite.deployment.settings import RankerSection
    from corewrite.domain.config_file import read_config
    from corewrite.fusion import default_spec, load_spec
    from corewrite.report.progress import ProgressSteps

    if spec_file is None and config is None:
        raise ValueError(f"{log} was written by your own engine: say which fusion spec it ranks by, --spec or --config")
    if spec_file is None:
        spec_file = read_config(config, RankerSection).ranker.spec
    spec = default_spec() if spec_file is None else load_spec(spec_file)
    with ProgressSteps(progress_console(quiet=as_json)).step("replay") as progress:
        found = replay_rankings(log, spec, progress=progress)
    if as_json:
        print_json({"log": "ranking", "share_agreeing": found.share_agreeing, **asdict(found)})
    else:
        say(
            f"rankings of your own engine, checked by their logged signals on {spec_file or 'the packaged spec'} "
            f"({found.spec_hash[:12]}); {found.passed_over} lines without one passed over"
        )
        compared = {
            name: found.by_factor[name] for name in sorted(found.by_factor, key=lambda n: found.by_factor[n].share_agreeing)
        }
        for name, one in {**({} if found.scores is None else {"scores": found.scores}), **compared}.items():
            say(f"  {name}: {one.share_agreeing:.4%} of {one.compared} agree within 1e-6, largest difference {one.worst:.2g}")
        say(f"  {found.same_order} of {found.searches} lists stand in the order of the spec")
        for name, exponent in found.exponents.items():
            say(f"  {name}: the logged scores ask for exponent {exponent:g}")
        for name in found.unchecked:
            say(f"  {name}: not checked, no line has this signal under a rewrite")
        for reason, count in found.unusable.items():
            say(f"  {count} rankings cannot be recomputed: {reason}")
    if found.share_agreeing < least:
        raise typer.Exit(Exit.FAILED)
