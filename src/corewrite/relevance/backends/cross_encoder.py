"""A cross-encoder of sentence-transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open

from corewrite.domain import Documents, sha256_json
from corewrite.domain.extras import from_extra
from corewrite.relevance.backends.calibration import ScoreCalibration
from corewrite.relevance.backends.errors import ScorerMismatchError
from corewrite.relevance.backends.folder import check_pin, check_safetensors, check_size
from corewrite.relevance.backends.pairs import Pair, document_texts, score_pairs

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class CrossEncoderScorer:
    """Scores by a `sentence_transformers.CrossEncoder` with one label (a `RelevanceScorer`).

    Weights come from safetensors in a local folder and no code of the folder is run. The model's own activation is left out:
    the calibration takes its place.

    Args:
        documents: What the rows mean.
        folder: The model folder.
        pin: `folder_hash` of the accepted model.
        calibration: Makes probabilities of logits.
        max_tokens: Longest pair, in tokens.
        batch: Pairs in one forward pass at most.
        device: Where it runs, as torch names it.

    Raises:
        ImportError: sentence-transformers is not installed.
        FileNotFoundError: the folder is missing.
        ScorerMismatchError: the folder is not the pinned one, holds code or pickles, lacks weights, or has several labels.
    """

    def __init__(
        self,
        documents: Documents,
        folder: str | Path,
        pin: str,
        calibration: ScoreCalibration,
        *,
        max_tokens: int = 256,
        batch: int = 32,
        device: str = "cpu",
    ) -> None:
        with from_extra("cross-encoder", "a cross-encoder needs sentence-transformers"):
            from sentence_transformers import CrossEncoder
        check_pin(folder, pin)
        check_safetensors(folder)
        check_size(folder)
        self._model: Any = CrossEncoder(
            str(folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            max_length=max_tokens,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
        if self._model.num_labels != 1:
            raise ScorerMismatchError(f"{folder} has {self._model.num_labels} labels: a relevance model has one")
        missing = _not_in_files(self._model.model.state_dict(), Path(folder))
        if missing:
            # transformers fills them with random numbers and goes on.
            raise ScorerMismatchError(f"{folder} lacks weights such as {missing[0]} ({len(missing)} in all)")
        self._model.eval()
        self._documents = documents
        self._calibration, self._batch = calibration, batch
        self._hash = sha256_json(["cross-encoder", pin, max_tokens, calibration.slope, calibration.offset])

    @property
    def model_hash(self) -> str:
        """Hash over the folder, `max_tokens` and the calibration."""
        return self._hash

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`.

        Raises:
            ScoreError: the model's answer for a document is no finite number.
        """
        return score_pairs(texts, rows, self._documents, self._ask, self._batch, self._calibration)

    def _ask(self, pairs: list[Pair]) -> npt.NDArray[np.floating]:
        said = document_texts(self._documents, np.array([row for _, row in pairs], np.int64))
        both = [(text, document) for (text, _), document in zip(pairs, said, strict=True)]
        logits = self._model.predict(
            both, batch_size=self._batch, show_progress_bar=False, activation_fn=torch.nn.Identity(), convert_to_numpy=True
        )
        return np.asarray(logits)


def _not_in_files(state: dict[str, torch.Tensor], folder: Path) -> list[str]:
    """Names of weights that no file below `folder` has, neither as such nor as the tied twin of one that it has."""
    saved: set[str] = set()
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            saved |= set(tensors.keys())
    held = {state[name].data_ptr() for name in saved & state.keys()}
    return sorted(name for name, tensor in state.items() if name not in saved and tensor.data_ptr() not in held)
