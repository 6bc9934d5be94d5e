"""A cross-encoder in ONNX Runtime, on the CPU."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from corewrite.domain import Catalogue, sha256_json
from corewrite.relevance.backends.calibration import Calibration
from corewrite.relevance.backends.errors import ScorerMismatchError
from corewrite.relevance.backends.folder import check_pin
from corewrite.relevance.backends.pairs import Pair, document_texts, score_pairs

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
_KNOWN = ("input_ids", "attention_mask", "token_type_ids")


class OnnxScorer:
    """Scores by `model.onnx` with `tokenizer.json` beside it (a `RelevanceScorer`).

    The model takes `input_ids` and, where it names them, `attention_mask` and `token_type_ids`, int64 [pairs, tokens], of text
    and document encoded together; its first output is one logit a pair, [pairs] or [pairs, 1]. External weights are in the same
    folder, where the pin covers them: ONNX Runtime refuses paths that lead out of it.

    Args:
        catalogue: What the rows mean.
        folder: Where the two files are.
        pin: `folder_hash` of the accepted model.
        calibration: Makes probabilities of logits.
        max_tokens: Longest pair, in tokens; what is longer loses tokens of the longer side.
        batch: Pairs in one run at most.
        threads: Threads of one run.

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: one of the two files is missing.
        ScorerMismatchError: the folder is not the pinned one, or the model wants other inputs.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        folder: str | Path,
        pin: str,
        calibration: Calibration,
        *,
        max_tokens: int = 256,
        batch: int = 32,
        threads: int = 1,
    ) -> None:
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImportError("an ONNX model needs ONNX Runtime: pip install 'corewrite[onnx]'") from error
        model, tokenizer = Path(folder) / "model.onnx", Path(folder) / "tokenizer.json"
        for file in (model, tokenizer):
            if not file.is_file():
                raise FileNotFoundError(f"{file} is missing: an ONNX relevance model is model.onnx and tokenizer.json")
        check_pin(folder, pin)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._names = [i.name for i in self._session.get_inputs()]
        if "input_ids" not in self._names or not set(self._names) <= set(_KNOWN):
            raise ScorerMismatchError(f"{model} wants inputs {self._names}; a cross-encoder has {list(_KNOWN)} or fewer")
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(max_tokens)
        padding = self._tokenizer.padding or {}
        self._tokenizer.enable_padding(**{k: padding[k] for k in ("pad_id", "pad_token", "pad_type_id") if k in padding})
        self._ids, self._documents = catalogue.ids, document_texts(catalogue)
        self._calibration, self._batch = calibration, batch
        self._hash = sha256_json(["onnx", pin, max_tokens, calibration.slope, calibration.offset])

    @property
    def model_hash(self) -> str:
        """Hash over the files, `max_tokens` and the calibration."""
        return self._hash

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`.

        Raises:
            ScoreError: the model's answer for a document is no finite number, or has another shape.
        """
        return score_pairs(texts, rows, self._ids, self._ask, self._batch, self._calibration)

    def _ask(self, pairs: list[Pair]) -> npt.NDArray[np.floating]:
        encoded = self._tokenizer.encode_batch([(text, self._documents[row]) for text, row in pairs])
        columns = {
            "input_ids": [e.ids for e in encoded],
            "attention_mask": [e.attention_mask for e in encoded],
            "token_type_ids": [e.type_ids for e in encoded],
        }
        feed = {name: np.asarray(columns[name], np.int64) for name in self._names}
        return np.asarray(self._session.run(None, feed)[0])
