"""A window of the log, read once: outcomes, propensities, and who may be trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corewrite.cycle.users import Users, build_users
from corewrite.domain import Documents, TrainingInstance
from corewrite.logs import (
    IngestReport,
    Outcomes,
    Propensity,
    Reformulation,
    SatisfactionThresholds,
    find_outcomes,
    fit_propensity,
    labelled_impressions,
    mine_instances,
    mine_reformulations,
    read_log,
    require_texts,
)
from corewrite.logs.outcomes import Overlap
from corewrite.logs.sealing import Unseal
from corewrite.relevance import Impressions


@dataclass(frozen=True, eq=False)
class LogWindow:
    """A log read and interpreted.

    Attributes:
        report: What the reader found.
        outcomes: Every search with its end.
        propensity: Of examination by position.
        users: Whose searches are the gate's.
    """

    report: IngestReport
    outcomes: Outcomes
    propensity: Propensity
    users: Users

    @property
    def span(self) -> str:
        """First and last moment, ISO 8601, joined by "/"."""
        return f"{self.report.first}/{self.report.last}"

    def endings(self) -> dict[str, str]:
        """How each search ended, by query id."""
        return dict(zip(self.outcomes.query_id, map(str, self.outcomes.outcome), strict=True))

    def impressions(self, documents: Documents) -> Impressions:
        """Examined results of users who may be trained on, for the relevance model."""
        table = labelled_impressions(self.outcomes, self.propensity, documents, self.users.may_train)
        return Impressions(
            table.query.tolist(),
            documents.rows(table.document_id.tolist()),
            table.satisfied,
            1.0 / np.maximum(table.propensity, 0.1),
            table.user_id.tolist(),
        )

    def reformulations(self) -> tuple[list[Reformulation], list[Reformulation]]:
        """Successful reformulations, and queries that satisfied as they were, of users who may be trained on."""
        return mine_reformulations(self.outcomes, self.users.may_train)

    def gate_repairs(self) -> list[Reformulation]:
        """Repairs of the gate's users."""
        return mine_reformulations(self.outcomes, self.users.is_gate)[0]

    def instances(self, documents: Documents, *, seed: int, for_gate: bool = False) -> list[TrainingInstance]:
        """Instances of users who may be trained on, or of the gate's."""
        wanted = self.users.is_gate if for_gate else self.users.may_train
        return mine_instances(self.outcomes, self.propensity, documents, seed=seed, user_filter=wanted)


def read_window(
    paths: Path | Sequence[Path],
    *,
    overlap: Overlap | None = None,
    thresholds: SatisfactionThresholds | None = None,
    rejects_path: Path | None = None,
    unseal: Unseal | None = None,
) -> LogWindow:
    """Read a log window.

    Args:
        paths: UBI files.
        overlap: Of two texts' results under the original-only ranking; None: of the displayed lists.
        thresholds: Satisfaction frozen on an earlier window; None: fitted on this one.
        rejects_path: Where unusable lines go.
        unseal: Opens sealed texts; None: they stay sealed.

    Raises:
        LogError: no usable query, or texts that cannot be read.
        ValueError: too few clicks to learn from.
    """
    log = require_texts(read_log(paths, rejects_path=rejects_path, unseal=unseal))
    outcomes = find_outcomes(log, overlap=overlap, thresholds=thresholds)
    return LogWindow(log.report, outcomes, fit_propensity(outcomes), build_users(outcomes))
