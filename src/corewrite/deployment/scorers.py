"""From the settings of a signal to what computes it; nothing heavy is imported until one is built."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from corewrite.deployment.settings import (
    CalibrationSettings,
    ClipSignal,
    CrossEncoderSignal,
    Inputs,
    KServeSignal,
    ModelSettings,
    OnnxSignal,
    PluginSignal,
    PythonSignal,
    load_secret,
)
from corewrite.domain import Documents, sha256_json
from corewrite.domain.documents import number_column
from corewrite.domain.plugins import SIGNALS, load_factory, load_plugin
from corewrite.relevance import RelevanceScorer, backends
from corewrite.relevance.backends.inputs import Input, PairInputs
from corewrite.relevance.backends.pairs import Pair, score_pairs
from corewrite.relevance.embedded import check_embedded

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class ColumnScorer:
    """A number of the document, whatever the text (a `RelevanceScorer`)."""

    def __init__(self, documents: Documents, column: str) -> None:
        """Read a column.

        Raises:
            ValueError: there is no such column, or it holds no numbers.
        """
        self._documents, self._column = documents, column
        number_column(documents, column, np.arange(min(1, len(documents)), dtype=np.int64))

    @property
    def model_hash(self) -> str:
        """Hash of the column's name: its values are the documents' own."""
        return sha256_json(["column", self._column])

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`; NaN where the document has no number."""
        rows = np.asarray(rows, np.int64)
        out, there = np.zeros(rows.shape), rows >= 0
        out[there] = number_column(self._documents, self._column, rows[there])
        return out


class FunctionScorer:
    """A function from the inputs of some pairs to as many numbers (a `RelevanceScorer`)."""

    def __init__(
        self,
        documents: Documents,
        function: Any,
        inputs: Mapping[str, Input],
        *,
        name: str,
        calibration: backends.ScoreCalibration | None,
        batch: int,
    ) -> None:
        self._documents, self._function, self._inputs = documents, function, PairInputs(documents, inputs)
        self._name, self._calibration, self._batch = name, calibration, batch

    @property
    def model_hash(self) -> str:
        """Hash over what names the function and its version."""
        return self._name

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`."""

        def ask(pairs: list[Pair]) -> npt.NDArray[np.floating]:
            return np.asarray(self._function(self._inputs.tensors(pairs)))

        return score_pairs(texts, rows, self._documents, ask, self._batch, self._calibration)


class NamedScorer:
    """A scorer of somebody else's under a hash that holds its pinned version (a `RelevanceScorer`)."""

    def __init__(self, scorer: RelevanceScorer, name: str) -> None:
        self._scorer, self._name = scorer, name

    @property
    def model_hash(self) -> str:
        """Hash over the pinned version and, where it has one, the scorer's own hash."""
        return sha256_json([self._name, getattr(self._scorer, "model_hash", "")])

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`."""
        found = np.asarray(self._scorer.score(texts, rows), np.float64)
        if found.shape != np.shape(rows):
            raise backends.ScoreError(f"the scorer answered shape {found.shape} for rows of shape {np.shape(rows)}")
        return found


def build_scorer(settings: ModelSettings, documents: Documents, *, live: bool, batch: int | None = None) -> RelevanceScorer:
    """What computes a signal by a model that is not ours.

    Args:
        settings: Of the signal.
        documents: What the rows mean.
        live: Whether searches wait for it: then its calls, however many pairs they have, end in `timeout_ms`.
        batch: Pairs in one call of the model; None: as the settings say.

    Raises:
        ImportError: a package is missing; the message names the extra.
        FileNotFoundError: the model's folder is missing.
        ScorerMismatchError: the model is not the pinned one, or wants other inputs.
        ValueError: an environment variable is not set, a factory cannot be imported, or a setting does not fit the model.
        TooManyDocumentsError: CLIP compares with every picture in memory, and there are more than fit.
    """
    if isinstance(settings, PluginSignal):
        made = load_plugin(SIGNALS, settings.kind)(documents, **settings.options)
        return NamedScorer(made, sha256_json(settings.identity))
    size = batch or settings.batch
    if isinstance(settings, KServeSignal):
        token = load_secret(settings.token_env)
        return backends.KServeScorer(
            documents,
            settings.url,
            settings.model,
            settings.version,
            batch=size,
            calibration=_calibration(settings.calibration),
            timeout=(settings.timeout_ms if live else settings.batch_timeout_ms) / 1000,
            each_request=not live,
            retries=settings.retries,
            binary=settings.binary,
            inputs=_inputs(settings.inputs),
            output=settings.output,
            headers=None if token is None else {"Authorization": f"Bearer {token}"},
        )
    if isinstance(settings, PythonSignal):
        factory = load_factory(settings.factory)
        name = sha256_json(settings.identity)
        if not settings.inputs:
            return NamedScorer(factory(documents, **settings.options), name)
        return FunctionScorer(
            documents,
            factory(**settings.options),
            _inputs(settings.inputs),
            name=name,
            calibration=_calibration(settings.calibration),
            batch=size,
        )
    calibration = backends.ScoreCalibration(**settings.calibration.model_dump())
    folder, pin = settings.folder, settings.pin
    if isinstance(settings, OnnxSignal):
        return backends.OnnxScorer(
            documents,
            folder,
            pin,
            calibration,
            max_tokens=settings.max_tokens,
            batch=size,
            threads=settings.threads,
            inputs=_inputs(settings.inputs),
        )
    if isinstance(settings, CrossEncoderSignal):
        return backends.CrossEncoderScorer(
            documents, folder, pin, calibration, max_tokens=settings.max_tokens, batch=size, device=settings.device
        )
    assert isinstance(settings, ClipSignal)
    check_embedded(len(documents))  # it holds every picture
    encoder = backends.ClipEncoder(folder, pin, batch=size, device=settings.device)
    pictures = documents.column("visual", np.arange(len(documents), dtype=np.int64))
    return backends.ClipScorer(documents, encoder, np.asarray(pictures, np.float32), calibration)


def _calibration(settings: CalibrationSettings | None) -> backends.ScoreCalibration | None:
    return None if settings is None else backends.ScoreCalibration(**settings.model_dump())


def _inputs(settings: Inputs) -> dict[str, Input]:
    return {name: Input(given.source, given.missing) for name, given in settings.items()}
