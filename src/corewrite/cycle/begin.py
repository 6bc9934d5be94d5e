"""How a week's cycle begins, or is gone on with."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import torch

from corewrite.cycle.catalogue_files import read_labels
from corewrite.cycle.config import CycleConfig
from corewrite.cycle.context import CycleContext
from corewrite.cycle.decision_log import CANDIDATE, RECOVER, VALIDATE_RANKER
from corewrite.cycle.mined_week import MinedWindow
from corewrite.cycle.parts import CycleParts
from corewrite.cycle.promotion import PromotionPolicy
from corewrite.cycle.records import RECORD, START, START_POLICY, CycleJournal
from corewrite.cycle.recovery import mitigations, verdicts_in_a_row
from corewrite.cycle.status import load_history
from corewrite.cycle.steps.fit_relevance import Refit
from corewrite.cycle.steps.rollout import begin_rollout, carry_rollout, rollout_lock
from corewrite.cycle.weeks import CycleError, weekly_logs
from corewrite.deployment.documents import open_documents
from corewrite.deployment.inputs import check_inputs, training_room
from corewrite.domain import sha256_json
from corewrite.domain.filters import load_filters
from corewrite.domain.steps import Steps
from corewrite.gate import CHECKS, Verdict
from corewrite.registry import Decision, Registry
from corewrite.relevance.pair_sample import Raters
from corewrite.storage.journal import JournalError
from corewrite.storage.run_layout import RunLayout
from corewrite.training.config import first_names
from corewrite.version import VERSION


def begin_cycle(
    config: CycleConfig,
    week: str | None,
    *,
    steps: Steps,
    refit: Refit,
    promotion: PromotionPolicy,
    raters: Raters | None = None,
    parts: CycleParts = CycleParts(),
) -> CycleContext:
    """Look at all that a cycle reads, and write down what it begins with; of a week that has begun, read it.

    Args:
        config: Settings.
        week: Name of its log; None: the newest.
        steps: Shows progress.
        refit: Fits the relevance model.
        promotion: Who has the last word.
        raters: Who grades the week's pairs; None: a team's own, by way of files.
        parts: Parts of the cycle.

    Raises:
        CycleError: no log, or a week out of turn.
        JournalError: the cycle began under other settings.
    """
    weeks = weekly_logs(config.logs)
    if not weeks:
        raise CycleError(f"logs {config.logs} holds no log: a week is a file <week>.ndjson[.gz] or a folder of such")
    week = week or list(weeks)[-1]
    if week not in weeks:
        raise CycleError(f"logs {config.logs} holds no week {week!r}; there are {', '.join(list(weeks)[-5:])}")
    finished = load_history(config.run)
    history, later = [r for r in finished if r["week"] < week], [r["week"] for r in finished if r["week"] > week]
    journal, registry = CycleJournal(config.run, week), Registry(RunLayout(config.run).registry)
    if later and journal.read(RECORD) is None:
        raise CycleError(f"week {week!r} is out of turn: the cycle of {later[-1]!r} is finished; run a later week")
    champion, log = registry.champion(), registry.decisions()
    if champion is not None:
        _catch_up(config, log[champion.version - 1])
    if champion is None and list(weeks).index(week) == 0:
        raise CycleError(f"{week!r} is the only week of log: the first cycle needs the week before for the relevance model")
    if journal.read(RECORD) is None:
        _check_inputs(config, weeks, week, warm_start=champion is None and journal.read(START_POLICY) is None)
    settings = _hash_settings(config)
    fitted = [i for i, r in enumerate(history) if r["relevance_fitted"] or r["recovered"]]
    every, since = config.refresh.relevance_every, len(history) - (fitted[-1] if fitted else 0)
    plan = journal.once(
        START,
        lambda: {
            "week": week,
            "settings": settings,
            "champion": None if champion is None else champion.version,
            "relevance_due": champion is None or bool(every and since >= every),
            "mitigations": mitigations(history),
            "holds": verdicts_in_a_row(history, Verdict.HOLD),
            "log": len(log),
            "code_version": VERSION,
            "threads": torch.get_num_threads(),
            "label_rows": pq.read_metadata(config.labels).num_rows,
        },
    )
    if plan["settings"] != settings and journal.read(RECORD) is None:
        raise JournalError(
            f"the cycle of {week!r} began under other settings: put them back, or remove {journal.folder} to begin anew"
        )
    documents = open_documents(config.documents, config.ranker, steps)
    labels = read_labels(config.labels, documents, first=plan.get("label_rows")).counts()
    return CycleContext(
        config, week, weeks, journal, registry, documents, history, plan, labels, promotion, refit, raters, parts, steps
    )


_LATER_CHECKS = ("risk_sensitive_ndcg",)
"""Checks that were not there when weeks were first hashed: their default margins are no part of the hash."""


def _hash_settings(config: CycleConfig) -> str:
    """Hash of the settings, each under the name that it had when it was first hashed: a week that is half finished goes on."""
    settings = config.model_dump(mode="json", exclude_defaults=True)
    if "rollout" in settings:
        settings["ramp"] = settings.pop("rollout")
    pipeline = settings.get("pipeline", {})
    pipeline.pop("trackers", None)  # who looks on changes nothing
    pipeline.pop("pairs_to_grade", None)  # a week that waits for raters may go on without them
    gate = pipeline.get("gate", {})
    if "minimum_effective_users" in gate:
        gate["minimum_users"] = gate.pop("minimum_effective_users")
    if "training" in pipeline:
        pipeline["training"] = first_names(pipeline["training"])
        if pipeline["training"].get("precision") == "float32":  # the default when it was first hashed
            del pipeline["training"]["precision"]
        if not pipeline["training"]:
            del pipeline["training"]
    server = pipeline.get("server") or {}
    if server.get("kind", "server") == "server" and "log_prob_mismatch_limit" in server:
        server["drift_limit"] = server.pop("log_prob_mismatch_limit")
    if not pipeline:
        settings.pop("pipeline", None)
    earlier = {name: check.earlier_name or name for name, check in CHECKS.items()}
    if "margins" in gate:
        gate["margins"] = {
            earlier[name]: margin
            for name, margin in gate["margins"].items()
            if name not in _LATER_CHECKS or margin != CHECKS[name].default_margin
        }
    if "required_checks" in gate:
        gate["required_checks"] = [earlier[name] for name in gate["required_checks"]]
    return sha256_json(settings)


def _check_inputs(config: CycleConfig, weeks: Mapping[str, list[Path]], week: str, *, warm_start: bool) -> None:
    """Look at all that a cycle reads before anything is done.

    Args:
        config: Settings.
        weeks: Log files by week.
        week: Whose cycle it is.
        warm_start: Whether it makes one, for which alone it needs the model that the settings name.
    """
    load_filters(config.pipeline.filters)
    if warm_start:
        config.pipeline.warm_start.check(config.model)
    place = list(weeks).index(week)
    names = list(weeks)[max(0, place - config.refresh.relevance_windows) : place + 1]
    layout = RunLayout(config.run)
    files = [f for name in names if not MinedWindow(layout.window(name)).is_there for f in weeks[name]]
    model = config.model if warm_start else None
    check_inputs(
        documents=config.documents,
        labels=config.labels,
        logs=files,
        spec=config.ranker.spec or config.spec,
        keys=config.privacy.keys,
        pairs=config.pipeline.warm_start.pairs if warm_start else None,
        model=model,
        writes=[config.run, *([] if config.frozen.is_file() else [config.frozen.parent])],
        room=training_room(config.documents, files, model, converted=not config.ranker.needs_documents_in_memory),
        extras=["train"],
    )


def _catch_up(config: CycleConfig, promoted: Decision) -> None:
    """Begin, or carry on, the rollout of a promote whose cycle was killed before it could, and was never gone on with."""
    found = promoted.evidence if isinstance(promoted.evidence, Mapping) else {}
    week, step = found.get("cycle"), found.get("step")
    if not isinstance(week, str) or CycleJournal(config.run, week).read(RECORD) is not None:
        return
    with rollout_lock(config.run):
        if step in (VALIDATE_RANKER, RECOVER):
            carry_rollout(config.run, promoted)
        elif step == CANDIDATE and promoted.previous is not None:
            begin_rollout(config.run, promoted, config.rollout)
