"""Scores texts and documents by an ONNX folder of `export_onnx`, in a model server's own process."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

MAX_TOKENS = 256
"""Longest pair in tokens, as `corewrite`'s ONNX backend has it by default."""


class OnnxFolder:
    """The model of one folder, on one thread."""

    def __init__(self, folder: str) -> None:
        """Load `model.onnx` and `tokenizer.json` of `folder`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"), options, ["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        # Of a call, at least: `benchmarks.ranker` makes a slow ranker of it.
        self._seconds = float(os.environ.get("FOREIGN_RANKER_MILLISECONDS", "0")) / 1e3
        self.picture = int(self._session.get_inputs()[3].shape[1])

    def score(
        self, texts: Sequence[str], documents: Sequence[str], pictures: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Calibrated logits, float32 [pairs, 1]."""
        end = time.perf_counter() + self._seconds
        encoded = self._tokenizer.encode_batch(list(zip(texts, documents, strict=True)))
        feed = {
            "input_ids": np.array([e.ids for e in encoded], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
            "token_type_ids": np.array([e.type_ids for e in encoded], np.int64),
            "picture": np.asarray(pictures, np.float32),
        }
        found = np.asarray(self._session.run(["score"], feed)[0], np.float32)
        time.sleep(max(0.0, end - time.perf_counter()))
        return found
