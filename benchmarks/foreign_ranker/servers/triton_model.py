"""The ranker as a model of Triton's Python backend; `serve` puts a copy of this file into the folder of each version."""

import json
import sys
from pathlib import Path
from typing import Any

# Triton's process knows the system's packages alone, and its own module wants NumPy: where ours are comes before the rest.
_SETTINGS = json.loads((Path(__file__).parent / "settings.json").read_text("utf-8"))
sys.path[:0] = _SETTINGS["python_path"]

import triton_python_backend_utils as pb_utils  # noqa: E402
from onnx_folder import OnnxFolder  # noqa: E402


class TritonPythonModel:
    """One version of the ranker (the name is Triton's)."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Load the folder of this version."""
        self._model = OnnxFolder(_SETTINGS["folder"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests one after another."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        text, document, picture = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("text", "document", "picture")
        )
        texts, documents = ([b.decode("utf-8", "replace") for b in column[:, 0]] for column in (text, document))
        return pb_utils.InferenceResponse([pb_utils.Tensor("score", self._model.score(texts, documents, picture))])
