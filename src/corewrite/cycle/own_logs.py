"""The run on a user's own log, documents and labels."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from corewrite.cycle.candidate import CandidateRun, make_candidate
from corewrite.cycle.candidate_config import PipelineConfig
from corewrite.cycle.grading import LabelsFileRaters, read_labels_without_pairs
from corewrite.cycle.judges import build_judge
from corewrite.cycle.steps.fit_relevance import fit_relevance
from corewrite.cycle.window import read_window
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.documents import open_documents
from corewrite.deployment.inputs import check_inputs, training_room
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import RankerSettings
from corewrite.domain.filters import load_filters
from corewrite.domain.steps import Steps
from corewrite.fusion import FusionSpec
from corewrite.logs.sealing import Unseal
from corewrite.registry import Registry
from corewrite.relevance import cold_start
from corewrite.search import top_overlap
from corewrite.search.document_store import in_memory
from corewrite.search.documents import copy_documents
from corewrite.storage.run_layout import RunLayout


def train_on_logs(
    documents: Path,
    earlier_logs: Sequence[Path],
    logs: Sequence[Path],
    labels: Path,
    folder: Path,
    *,
    spec: FusionSpec,
    ranker: RankerSettings = RankerSettings(),
    config: PipelineConfig,
    seed: int,
    steps: Steps,
    model: str | None = None,
    unseal: Unseal | None = None,
) -> CandidateRun:
    """Fit the relevance model and the judge, train a rewriter, and let the gate decide.

    Args:
        documents: Parquet, see `read_catalogue`.
        earlier_logs: UBI files of an earlier window, for the relevance model.
        logs: UBI files of the window that gives the reward its instances.
        labels: Parquet of rated results, see `read_labels`.
        folder: Run folder; a run that was killed continues from its last whole phase.
        spec: Fusion spec.
        ranker: Where its signals come from, and what recalls; default: the bundled model, fitted here.
        config: Settings.
        seed: The one seed.
        steps: Shows progress.
        model: Path or name of a causal LM; None: a small decoder trained from scratch.
        unseal: Opens sealed texts of the logs; None: they stay sealed.

    Raises:
        ValueError: unusable or too little data; the message names what and where.
    """
    files, layout = [*earlier_logs, *logs], RunLayout(folder)
    load_filters(config.filters)
    config.warm_start.check(model)
    check_inputs(
        documents=documents,
        labels=labels,
        logs=files,
        pairs=config.warm_start.pairs,
        model=model,
        writes=[folder],
        room=training_room(documents, files, model, converted=not ranker.needs_documents_in_memory),
        extras=["train"],
    )
    opened = open_documents(documents, ranker, steps)
    # A training that goes on after its raters have answered: their grades are to correct the judge.
    rated = read_labels_without_pairs(labels, layout.pairs_to_grade, opened)
    with steps.step("read documents and logs"):
        opener = RankerOpener(ranker, opened)
        fits = ranker.needs_embedder
        cold = Deployment(opener.build(cold_start(in_memory(opened), seed=seed) if fits else None), spec)
        earlier = read_window(
            earlier_logs, overlap=top_overlap(cold.cascade), rejects_path=layout.reject_file("earlier-log"), unseal=unseal
        )
    with steps.step("fit the relevance model") as progress:
        fitted = fit_relevance(earlier, in_memory(opened), seed=seed, progress=progress).model if fits else None
        deployment = Deployment(opener.build(fitted), spec)
        window = read_window(
            logs,
            overlap=top_overlap(deployment.cascade),
            thresholds=earlier.outcomes.thresholds,
            rejects_path=layout.reject_file("log"),
            unseal=unseal,
        )
    with steps.step("fit the judge"):
        judge = build_judge(config.judge, opened)
        judge.fit(rated, seed=seed)
    copy_documents(documents, layout.documents_copy)  # what `corewrite search --run` reads
    registry = Registry(layout.registry)
    raters = LabelsFileRaters(layout.pairs_to_grade, labels, opened)
    made = make_candidate(
        earlier,
        window,
        deployment,
        judge,
        registry,
        config,
        folder,
        seed=seed,
        steps=steps,
        opener=opener,
        model=model,
        raters=raters,
    )
    return replace(made, labels=rated.counts())
