"""The state that arms branch from: what is kept of it, and what incidents know of it."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq

from corewrite.cycle.mined_week import MinedWindow, frequencies
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.load import load_deployment, load_policy
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import words
from corewrite.rewriter import Rewriter
from corewrite.storage.durable import whole_file
from corewrite.storage.journal import write_json
from corewrite.storage.json_file import read_object
from corewrite.studies.incidents.config import IncidentsConfig
from corewrite.studies.incidents.incident import BranchPoint
from corewrite.studies.incidents.layout import StudyLayout
from corewrite.studies.incidents.platform import StudyPlatform
from corewrite.studies.layout import FIRST_WEEK, week_name


def write_point(config: IncidentsConfig, layout: StudyLayout) -> None:
    """Write down the state at the end of the healthy weeks."""
    windows = _windows(config, layout)
    satisfied = Counter[str]()
    for window in windows:
        table = window.impressions()
        satisfied.update(table.filter(table["satisfied"])["document_id"].to_pylist())
    names = sorted(satisfied)
    with whole_file(layout.popularity) as temporary:
        pq.write_table(pa.table({"document_id": names, "satisfied": [satisfied[name] for name in names]}), temporary)
    registry = layout.trunk.registry
    champion = registry.champion()
    assert champion is not None  # put there before the first week
    first = next(d.candidate for d in registry.decisions() if d.verdict == "promote" and d.candidate)
    write_json(layout.point, {**{str(k): hash for k, hash in champion.hashes.items()}, "first_policy": first.policy})


def load_point(config: IncidentsConfig, layout: StudyLayout) -> BranchPoint:
    """What incidents know of the state."""
    kept = read_object(layout.point, ValueError, "remove it, and the study writes it again")
    registry = layout.trunk.registry
    counts, _ = frequencies(_windows(config, layout))
    common = Counter[str]()
    for text, n in counts.items():
        for word in words(text):
            common[word] += n
    return BranchPoint(
        config.seed,
        registry.path(registry.artifact("relevance", kept["relevance"])).absolute(),
        registry.path(registry.artifact("policy", kept["first_policy"])).absolute(),
        layout.popularity.absolute(),
        tuple(sorted(common, key=lambda word: (-common[word], word))),
        frozenset(counts),
    )


def healthy_deployment(layout: StudyLayout, platform: StudyPlatform) -> Deployment:
    """What ranked at the end of the healthy weeks."""
    kept = read_object(layout.point, ValueError, "remove it, and the study writes it again")
    opener = RankerOpener(RankerSettings(), platform.catalogue)
    return load_deployment(layout.trunk.registry, opener, kept["relevance"], kept["spec"])


def healthy_policy(layout: StudyLayout) -> Rewriter:
    """The champion at the end of the healthy weeks."""
    kept = read_object(layout.point, ValueError, "remove it, and the study writes it again")
    return load_policy(layout.trunk.registry, kept["policy"])


def _windows(config: IncidentsConfig, layout: StudyLayout) -> list[MinedWindow]:
    weeks = range(1, FIRST_WEEK + config.healthy_weeks)
    return [MinedWindow(layout.trunk.run.window(week_name(week))) for week in weeks]
