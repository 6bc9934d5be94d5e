"""The ranker as a runtime of MLServer; `serve` names this class in the settings of each version."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_folder import OnnxFolder


class RankerModel(MLModel):
    """One version of the ranker."""

    async def load(self) -> bool:
        """Load the folder that the settings name."""
        self._model = OnnxFolder(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score the pairs of a request."""
        inputs = {tensor.name: tensor for tensor in payload.inputs}
        texts, documents = (StringCodec.decode_input(inputs[name]) for name in ("text", "document"))
        score = self._model.score(texts, documents, NumpyCodec.decode_input(inputs["picture"]))
        output = NumpyCodec.encode_output("score", score)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
