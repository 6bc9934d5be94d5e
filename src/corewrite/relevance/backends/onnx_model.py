"""A cross-encoder in ONNX Runtime, on the CPU."""

import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from corewrite.domain import Documents, sha256_json
from corewrite.domain.extras import from_extra
from corewrite.relevance.backends.calibration import ScoreCalibration
from corewrite.relevance.backends.errors import ScorerMismatchError
from corewrite.relevance.backends.folder import check_pin, uncovered
from corewrite.relevance.backends.inputs import Input, PairInputs
from corewrite.relevance.backends.pairs import Pair, document_texts, score_pairs

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
_NO_TOKENIZER = "{file} is missing: an ONNX model that reads tokens is model.onnx and tokenizer.json"
_KNOWN = ("input_ids", "attention_mask", "token_type_ids")


def _tokenizer(file: Path, max_tokens: int) -> Tokenizer:
    if not file.is_file():
        raise FileNotFoundError(_NO_TOKENIZER.format(file=file))
    found = Tokenizer.from_file(str(file))
    found.enable_truncation(max_tokens)
    padding = found.padding or {}
    found.enable_padding(**{k: padding[k] for k in ("pad_id", "pad_token", "pad_type_id") if k in padding})
    return found


def _refuse_unpinned_weights(model: Path, left_out: list[Path]) -> None:
    """A model names the files of its external weights, so that one which the pin does not cover stands in its bytes."""
    if not left_out:
        return
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if named := next((f for f in left_out if content.find(os.fsencode(f.name)) >= 0), None):
            raise ScorerMismatchError(
                f"{model} names {named}, which its pin, of an earlier version, does not cover: pin "
                f"folder_hash({str(model.parent)!r}) if this is the accepted model"
            )


class OnnxScorer:
    """Scores by `model.onnx` with `tokenizer.json` beside it (a `RelevanceScorer`).

    The model takes `input_ids` and, where it names them, `attention_mask` and `token_type_ids`, int64 [pairs, tokens], of text
    and document encoded together, and whatever `inputs` fills, such as a picture; its first output is one logit a pair, [pairs]
    or [pairs, 1]. External weights are in the same
    folder, where the pin covers them: ONNX Runtime refuses paths that lead out of it.

    Args:
        documents: What the rows mean.
        folder: Where the two files are.
        pin: `folder_hash` of the accepted model.
        calibration: Makes probabilities of logits.
        max_tokens: Longest pair, in tokens; what is longer loses tokens of the longer side.
        batch: Pairs in one run at most.
        threads: Threads of one run.
        inputs: What its further inputs are filled with, by their names.

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: one of the two files is missing.
        ScorerMismatchError: the folder is not the pinned one, or the model wants other inputs.
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
        threads: int = 1,
        inputs: Mapping[str, Input] = MappingProxyType({}),
    ) -> None:
        with from_extra("onnx", "an ONNX model needs ONNX Runtime"):
            import onnxruntime  # type: ignore[import-untyped]
        model, tokenizer = Path(folder) / "model.onnx", Path(folder) / "tokenizer.json"
        if not model.is_file():
            raise FileNotFoundError(f"{model} is missing: an ONNX relevance model is model.onnx and tokenizer.json")
        try:
            check_pin(folder, pin)
        except ScorerMismatchError as error:
            if tokenizer.is_file():
                raise
            raise FileNotFoundError(_NO_TOKENIZER.format(file=tokenizer)) from error
        _refuse_unpinned_weights(model, uncovered(folder, pin))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._names = [i.name for i in self._session.get_inputs()]
        self._documents, self._inputs = documents, PairInputs(documents, inputs)
        if set(inputs) - set(self._names):
            raise ScorerMismatchError(
                f"{model} has no input {sorted(set(inputs) - set(self._names))[0]!r}, it wants {self._names}"
            )
        if set(self._names) - {*_KNOWN, *inputs}:
            wanted = sorted(set(self._names) - {*_KNOWN, *inputs})[0]
            raise ScorerMismatchError(
                f"{model} wants inputs {self._names}, and nothing says what {wanted!r} is filled with: name it under "
                f"`inputs`, such as {wanted}: document.visual"
            )
        self._tokenizer = _tokenizer(tokenizer, max_tokens) if set(_KNOWN) & set(self._names) else None
        self._calibration, self._batch = calibration, batch
        filled = [[name, i.source, i.missing] for name, i in sorted(inputs.items())]
        self._hash = sha256_json(
            ["onnx", pin, max_tokens, calibration.slope, calibration.offset, *([filled] if filled else [])]
        )

    @property
    def model_hash(self) -> str:
        """Hash over the files, `max_tokens` and the calibration."""
        return self._hash

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`.

        Raises:
            ScoreError: the model's answer for a document is no finite number, or has another shape.
        """
        return score_pairs(texts, rows, self._documents, self._ask, self._batch, self._calibration)

    def _ask(self, pairs: list[Pair]) -> npt.NDArray[np.floating]:
        feed: dict[str, Any] = {
            name: np.array(values, object) if isinstance(values, list) else values
            for name, values in self._inputs.tensors(pairs).items()
        }
        if self._tokenizer is not None:
            rows = np.array([row for _, row in pairs], np.int64)
            texts = document_texts(self._documents, rows)
            encoded = self._tokenizer.encode_batch([(text, said) for (text, _), said in zip(pairs, texts, strict=True)])
            columns = {
                "input_ids": [e.ids for e in encoded],
                "attention_mask": [e.attention_mask for e in encoded],
                "token_type_ids": [e.type_ids for e in encoded],
            }
            feed |= {name: np.asarray(columns[name], np.int64) for name in columns.keys() & set(self._names)}
        return np.asarray(self._session.run(None, feed)[0])
