"""The ranker: the fusion spec, where each of its signals comes from, and what brings candidates."""

from pathlib import Path

from pydantic import Field

from corewrite.deployment.settings.recall import EmbeddedRecall, RecallSettings
from corewrite.deployment.settings.signals import ColumnSignal, EmbeddedSignal, SignalSettings
from corewrite.domain import Settings

DEFAULT_SIGNALS = ("relevance", "dense", "prior")
"""Signals that need no setting: the bundled model's score, its pooled form, and the column `prior`."""


class RankerSettings(Settings):
    """What ranks in production, rewards in training and judges at the gate: one section for every command."""

    spec: Path | None = None
    """Fusion spec; None: the packaged one."""
    signals: dict[str, SignalSettings] = Field(default_factory=dict)
    """Where each signal of the spec comes from, by its name. `relevance`, `dense` and `prior` need not be named: the bundled
    model and the documents' column `prior`."""
    recall: RecallSettings = EmbeddedRecall()
    """What brings candidates."""

    def signal(self, name: str) -> "SignalSettings":
        """Where a signal comes from.

        Raises:
            ValueError: the settings do not say.
        """
        if name in self.signals:
            return self.signals[name]
        if name == "prior":
            return ColumnSignal(kind="column", column="prior")
        if name in DEFAULT_SIGNALS:
            return EmbeddedSignal()
        known = ", ".join(sorted({*DEFAULT_SIGNALS, *self.signals}))
        raise ValueError(
            f"nothing says where the signal {name!r} of the fusion spec comes from: add it to ranker.signals ({known} are "
            "known)"
        )

    @property
    def needs_embedder(self) -> bool:
        """Whether the bundled model, which is fitted on the log, computes a signal or embeds for recall."""
        return self.recall.by_vectors or "embedded" in self._kinds

    @property
    def needs_documents_in_memory(self) -> bool:
        """Whether something here holds all documents: what is embedded, and CLIP."""
        return self.needs_embedder or self.recall.kind == "embedded" or "clip" in self._kinds

    @property
    def _kinds(self) -> set[str]:
        return {self.signal(name).kind for name in {*self.signals, "relevance", "dense"}}


class RankerSection(Settings):
    """What a command reads of `corewrite.yaml` that needs nothing but the ranker."""

    ranker: RankerSettings = RankerSettings()
    """What ranks in production."""
