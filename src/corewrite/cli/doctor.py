"""`corewrite doctor`."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from corewrite.cli.common import Exit, is_of_the_input, print_json, progress_console, reported_errors, say

if TYPE_CHECKING:
    from corewrite.cycle.config_sections import DataSections
    from corewrite.domain import Settings
    from corewrite.domain.steps import Steps
    from corewrite.serving.settings import ServeConfig

EXAMPLES = (
    "Examples: `corewrite doctor` · `corewrite doctor --config /etc/corewrite/corewrite.yaml --json`. "
    "Exit code 0: nothing stands in the way of `corewrite train`; 1: something does, and how to mend it."
)


@dataclass(frozen=True)
class DoctorFinding:
    """What one check found.

    Attributes:
        name: Of the check.
        ok: Whether nothing is wrong.
        message: What is there; where something is wrong, what, and how to mend it.
    """

    name: str
    ok: bool
    message: str


def doctor(
    config: Path = typer.Option(
        Path("corewrite.yaml"), "--config", "-c", help="Settings, YAML (docs/reference/corewrite-yaml.md)."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> None:
    """Check all that the settings name: files, fusion spec, ranker, model, folders, secrets, installed extras. Writes nothing
    but the converted form of documents that stay on disk."""
    from corewrite.report.progress import ProgressSteps

    with reported_errors():
        findings = list(examine(config, ProgressSteps(progress_console(quiet=as_json))))
    show(findings, as_json=as_json)
    if not all(f.ok for f in findings):
        raise typer.Exit(Exit.FAILED)


def show(findings: list[DoctorFinding], *, as_json: bool) -> None:
    """One line a check; what is wrong also where it takes several lines."""
    if as_json:
        print_json({"ok": all(f.ok for f in findings), "checks": [asdict(f) for f in findings]})
        return
    for found in findings:
        first, *rest = found.message.split("\n")
        say(f"{'OK' if found.ok else 'PROBLEM':<8} {found.name:<12} {first}", fg=None if found.ok else "red")
        say(*(f"{'':<21} {line}" for line in rest), fg=None if found.ok else "red")


def examine(config: Path, steps: "Steps") -> Iterator[DoctorFinding]:
    """Check the settings, and all that they name.

    Args:
        config: The file.
        steps: Shows the progress of documents that are opened to try a ranker of one's own on them.
    """
    settings: DataSections | None = None
    served: ServeConfig | None = None

    def read() -> str:
        nonlocal settings, served
        settings, served = _read(config)
        return str(config)

    yield _finding("settings", read)
    if settings is None:
        return
    data = settings
    yield _finding("packages", lambda: _packages(data, served))
    yield _finding("documents", lambda: _documents(data))
    yield _finding("labels", lambda: _labels(data))
    yield _finding("logs", lambda: _logs(data))
    yield _finding("fusion spec", lambda: _spec(data))
    yield _finding("ranker", lambda: _ranker(data, steps))
    yield _finding("model", lambda: _model(data))
    yield _finding("filters", lambda: _filters(data))
    yield _finding("folders", lambda: _folders(data, served))
    yield _finding("secrets", lambda: _secrets(data, served))


def _finding(name: str, check: Callable[[], str]) -> DoctorFinding:
    try:
        return DoctorFinding(name, True, check())
    except (ValueError, OSError, RuntimeError, LookupError, ImportError) as error:
        if not is_of_the_input(error):
            raise
        # What checks inputs says of which kind each is: the line does so already.
        return DoctorFinding(name, False, "\n".join(line.removeprefix(f"{name}: ") for line in str(error).split("\n")))


def _read(config: Path) -> "tuple[DataSections, ServeConfig | None]":
    """What training reads, and where they have a section of their own, what cycle, server and experiments do."""
    from corewrite.cli.experiment_settings import ExperimentSections
    from corewrite.cycle.config_sections import CycleSections, DataSections
    from corewrite.domain import ConfigError
    from corewrite.domain.config_file import read_config
    from corewrite.domain.strict_yaml import read_yaml
    from corewrite.serving.settings import load_serve_config

    document = read_yaml(config).value
    names = document.keys() if isinstance(document, dict) else ()
    kinds: list[type[Settings]] = [DataSections, *([CycleSections] if "frozen" in names else []), ExperimentSections]
    problems: list[str] = []
    for kind in kinds:
        try:
            read_config(config, kind)
        except ConfigError as error:
            problems += str(error).split("\n")
    served = None
    try:
        served = load_serve_config(config) if "serve" in names else None
    except ConfigError as error:
        problems += str(error).split("\n")
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    found = read_config(config, DataSections)
    _ = found.pipeline  # reads the frozen margins, where there are any
    return found, served


def _packages(settings: "DataSections", served: "ServeConfig | None") -> str:
    from corewrite.domain.extras import require_extras

    ranker = settings.ranker
    by_kind = {"kserve": "kserve", "onnx": "onnx", "cross_encoder": "cross-encoder"}
    needed = ["train", "report", *(by_kind[s.kind] for s in ranker.signals.values() if s.kind in by_kind)]
    needed += [ranker.recall.kind] if ranker.recall.kind in ("qdrant", "opensearch", "redis") else []
    needed += ["lora"] if settings.training.lora is not None else []
    needed += ["server"] if settings.sampling is not None and settings.sampling.kind == "server" else []
    needed += settings.trackers
    if served is not None:
        needed.append("serve")
    if settings.privacy.keys is not None or (served is not None and served.log.seal_to is not None):
        needed.append("seal")
    needed = list(dict.fromkeys(needed))
    require_extras(*needed)
    return f"corewrite[{','.join(needed)}]"


def _documents(settings: "DataSections") -> str:
    from corewrite.deployment.inputs import check_inputs
    from corewrite.search.documents import parquet_files

    check_inputs(documents=settings.documents)
    files = len(parquet_files(settings.documents))
    return f"{settings.documents}" if files == 1 else f"{settings.documents}: {files} files"


def _labels(settings: "DataSections") -> str:
    from corewrite.deployment.inputs import check_inputs

    check_inputs(labels=settings.labels)
    return str(settings.labels)


def _logs(settings: "DataSections") -> str:
    from corewrite.cycle.weeks import split_windows, weekly_logs
    from corewrite.deployment.inputs import check_inputs

    if settings.logs is None:
        raise ValueError("no log is named: name the folder with a UBI log for every week in `logs`")
    split_windows(settings.logs, [], [], settings.refresh.relevance_windows)
    weeks = weekly_logs(settings.logs)
    check_inputs(logs=[file for files in weeks.values() for file in files])
    names = list(weeks)
    return f"{settings.logs}: {len(names)} weeks, {names[0]} to {names[-1]}"


def _spec(settings: "DataSections") -> str:
    from corewrite.fusion import default_spec, load_spec

    file = settings.ranker.spec
    spec = default_spec() if file is None else load_spec(file)
    if spec.reward_problem:
        raise ValueError(spec.reward_problem)
    for stage in (spec.rawrank, spec.finerank):
        for name in {*(one.signal for one in stage.original), *(one.signal for one in stage.rewrite)}:
            settings.ranker.signal(name)
    weights = f"reward: finerank {spec.reward.finerank_weight:g}, reach {spec.reward.reach_weight:g}"
    return f"{'the packaged one' if file is None else file}, hash {spec.spec_hash[:12]}, {weights}"


def _ranker(settings: "DataSections", steps: "Steps") -> str:
    from corewrite.deployment.documents import open_documents
    from corewrite.deployment.open import RankerOpener
    from corewrite.domain import Catalogue

    # The bundled model alone has nothing to try before it is fitted.
    bundled = RankerOpener(settings.ranker, Catalogue.of_ids([])).is_bundled
    recall = f"recall {settings.ranker.recall.kind}"
    if bundled:
        return f"the bundled model, fitted by the first training; {recall}"
    opener = RankerOpener(settings.ranker, open_documents(settings.documents, settings.ranker, steps))
    opener.try_models()
    return ", ".join(f"{name} {one.kind}" for name, one in sorted(settings.ranker.signals.items())) + f"; {recall}"


def _model(settings: "DataSections") -> str:
    from corewrite.deployment.inputs import check_inputs

    settings.warm_start.check(settings.model)
    check_inputs(model=settings.model, pairs=settings.warm_start.pairs)
    return settings.model or "a small decoder, trained from scratch"


def _filters(settings: "DataSections") -> str:
    from corewrite.domain.filters import load_filters

    load_filters(settings.rewriter.filters)
    return ", ".join(one.kind for one in settings.rewriter.filters) or "none is set"


def _folders(settings: "DataSections", served: "ServeConfig | None") -> str:
    from corewrite.deployment.inputs import check_inputs, training_room

    logged = [] if served is None or served.log.folder is None else [served.log.folder]
    files = [] if settings.logs is None else [file for file in settings.logs.rglob("*") if file.is_file()]
    converted = not settings.ranker.needs_documents_in_memory
    check_inputs(
        keys=settings.privacy.keys,
        public_key=None if served is None else served.log.seal_to,
        writes=[settings.run, *logged],
        room=training_room(settings.documents, files, settings.model, converted=converted),
    )
    return ", ".join(str(folder) for folder in (settings.run, *logged))


def _secrets(settings: "DataSections", served: "ServeConfig | None") -> str:
    from corewrite.deployment.settings import load_secret
    from corewrite.serving.settings import secret_names

    names = sorted(secret_names(settings) | (set() if served is None else secret_names(served)))
    for name in names:
        load_secret(name)
    return ", ".join(names) or "none is named"
