"""The wire format of the Open Inference Protocol (KServe v2) over HTTP, as much as scoring pairs needs.

JSON, and the binary tensor extension: the JSON is followed by the tensors' raw bytes, little-endian, each string behind its
length in four bytes, and a header says where the JSON ends.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from corewrite.relevance.backends.errors import ScorerMismatchError

JSON_LENGTH = "Inference-Header-Content-Length"
_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}


def encode(
    inputs: Mapping[str, Sequence[str] | npt.NDArray[np.float32] | npt.NDArray[np.int64]], output: str, binary: bool
) -> tuple[bytes, dict[str, str]]:
    """A request.

    Args:
        inputs: Each input tensor by its name, all of one length n: strings, sent in shape [n, 1], or an array, sent in its
            shape as FP32 or INT64.
        output: Name of the output tensor wanted.
        binary: Whether tensors go and come as raw bytes.

    Returns:
        Body and headers.
    """
    tensors: list[dict[str, Any]] = []
    raw = b""
    for name, values in inputs.items():
        tensor: dict[str, Any] = {"name": name, "shape": [len(values), 1], "datatype": "BYTES"}
        if isinstance(values, np.ndarray):
            wire = np.dtype("<f4") if values.dtype.kind == "f" else np.dtype("<i8")
            tensor |= {"shape": list(values.shape), "datatype": "FP32" if wire.kind == "f" else "INT64"}
            data = values.astype(wire).tobytes() if binary else b""
            # JSON carries the numbers row by row, as the protocol wants them.
            plain: list[Any] = [] if binary else values.astype(np.float64 if wire.kind == "f" else np.int64).ravel().tolist()
        else:
            data = b"".join(struct.pack("<I", len(b)) + b for b in (s.encode() for s in values)) if binary else b""
            plain = [] if binary else list(values)
        if binary:
            tensor["parameters"] = {"binary_data_size": len(data)}
            raw += data
        else:
            tensor["data"] = plain
        tensors.append(tensor)
    request = {"inputs": tensors, "outputs": [{"name": output, "parameters": {"binary_data": binary}}]}
    head = json.dumps(request).encode()
    if not binary:
        return head, {"Content-Type": "application/json"}
    return head + raw, {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))}


def decode(body: bytes, json_length: str | None, output: str, model: str, version: str) -> npt.NDArray[np.floating]:
    """The output tensor of an answer, in the shape that the answer gives it.

    Args:
        body: The answer's body.
        json_length: Its header of that name; None where the body is JSON alone.
        output: Name of the tensor.
        model: Name that the answer must give.
        version: Version that the answer must give.

    Raises:
        ScorerMismatchError: another model or version answers, or the answer is malformed or lacks the tensor.
    """
    try:
        length = len(body) if json_length is None else int(json_length)
        answer = json.loads(body[:length])
        if answer["model_name"] != model or answer.get("model_version") != version:
            raise ScorerMismatchError(
                f"asked was version {version!r} of model {model!r}, answered has version {answer.get('model_version')!r} of "
                f"{answer['model_name']!r}"
            )
        tensors = {tensor["name"]: tensor for tensor in answer["outputs"]}
        tensor = tensors[output]
        shape, datatype = tensor["shape"], tensor["datatype"]
        if datatype not in _FLOATS:
            raise ScorerMismatchError(f"output {output!r} has datatype {datatype!r}, scores are one of {sorted(_FLOATS)}")
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = np.asarray(tensor["data"])
            if values.dtype.kind not in "fiu":  # strings and nulls, which numpy would make numbers of
                raise ScorerMismatchError(f"output {output!r} holds something that is no number: {repr(tensor['data'])[:100]}")
        else:
            start = length
            for name, other in tensors.items():
                if name == output:
                    break
                start += other.get("parameters", {}).get("binary_data_size", 0)
            if start + size > len(body):
                raise ScorerMismatchError(
                    f"output {output!r} should have {size} bytes, the answer ends {start + size - len(body)} before"
                )
            values = np.frombuffer(body[start : start + size], _FLOATS[datatype])
        return values.astype(np.float64).reshape(shape)
    except ScorerMismatchError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ScorerMismatchError(f"the answer of model {model!r} cannot be read: {what}: {body[:100]!r}") from error
