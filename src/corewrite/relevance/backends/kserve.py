"""A relevance model behind the Open Inference Protocol (KServe v2) over HTTP: Triton, KServe, MLServer and others."""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from urllib.parse import quote, urlsplit

import numpy as np
import numpy.typing as npt

from corewrite.domain import Documents, sha256_json
from corewrite.domain.extras import from_extra
from corewrite.relevance.backends.calibration import ScoreCalibration
from corewrite.relevance.backends.errors import ScorerMismatchError, ScorerUnavailableError
from corewrite.relevance.backends.inputs import Input, PairInputs
from corewrite.relevance.backends.open_inference import JSON_LENGTH, decode, encode
from corewrite.relevance.backends.pairs import Pair, score_pairs

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_FIRST_WAIT = 0.05  # seconds, doubled at every further attempt
_SHOWN = 200


class _PassingError(Exception):
    """What may be over at the next attempt."""


class KServeScorer:
    """Scores by a model server (a `RelevanceScorer`).

    The model takes what `inputs` says, strings as `BYTES` in shape [pairs, 1], numbers and vectors as `FP32` in shape
    [pairs, k], and answers one tensor of floats, [pairs] or [pairs, 1].

    Tried again is what may pass: no connection, a lost one, a 5xx. A late answer is not: a server that is slow is not helped
    by being asked twice. These tries are within one call and its time; `training.scoring` repeats whole calls over minutes.

    Args:
        documents: What the rows mean.
        base_url: Where the server listens, such as `http://localhost:8000`.
        model: Its name there.
        model_version: The pinned version: it is asked for, and every answer must come from it.
        calibration: For a model that answers logits; None where it answers probabilities.
        batch: Pairs in one request at most; the server's own limit.
        timeout: Seconds that one call of `score` may take, with all its requests and further attempts; with `each_request`,
            that each request may.
        each_request: For batch jobs, whose calls are of any size.
        retries: Further attempts of each request.
        binary: Whether tensors go as raw bytes (an extension of the protocol, which Triton has).
        inputs: What its tensors are filled with, by their names; default: `text`, and title and text as `document`.
        output: Name of the tensor it answers.
        headers: Sent with every request: a host name for a gateway, a token.

    Raises:
        ImportError: httpx or tenacity is not installed.
        ValueError: `base_url` is no http address, or a limit is not above 0.
    """

    def __init__(
        self,
        documents: Documents,
        base_url: str,
        model: str,
        model_version: str,
        *,
        calibration: ScoreCalibration | None = None,
        batch: int = 64,
        timeout: float = 2.0,
        retries: int = 2,
        binary: bool = False,
        inputs: Mapping[str, Input] = MappingProxyType({"text": Input("text"), "document": Input("document")}),
        each_request: bool = False,
        output: str = "score",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        with from_extra("kserve", "a model server needs httpx and tenacity"):
            import httpx
            import tenacity

            from corewrite.remote.http import BoundedTransport
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"base_url {base_url!r} is no http address: give one such as http://localhost:8000")
        if batch < 1 or timeout <= 0 or retries < 0:
            raise ValueError(f"batch {batch} and timeout {timeout} must be above 0, retries {retries} not below")
        self._documents, self._inputs = documents, PairInputs(documents, inputs)
        self._filled_with = [[name, i.source, i.missing] for name, i in inputs.items()]
        self._model, self._version = model, model_version
        self._calibration, self._batch, self._timeout, self._retries = calibration, batch, timeout, retries
        self._binary, self._each, self._output = binary, each_request, output
        path = f"v2/models/{quote(model, safe='')}/versions/{quote(model_version, safe='')}/infer"
        self._url = f"{base_url.rstrip('/')}/{path}"
        self._httpx, self._tenacity = httpx, tenacity
        self._client = httpx.Client(transport=BoundedTransport(base_url), headers=dict(headers or {}))

    @property
    def model_hash(self) -> str:
        """Hash over the model's name and pinned version, the tensors read and the calibration; where it runs does not count."""
        calibration = self._calibration and [self._calibration.slope, self._calibration.offset]
        filled = self._filled_with
        # Two texts alone hash as they did before a model could have other inputs: what was logged under it stays comparable.
        plain = [f[1:] for f in filled] == [["text", None], ["document", None]]
        return sha256_json(
            ["kserve", self._model, self._version, *([f[0] for f in filled] if plain else filled), self._output, calibration]
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`.

        Raises:
            ScorerUnavailableError: no answer in time, or only 5xx.
            ScorerMismatchError: another version answers, the request is refused, or the answer cannot be read.
            ScoreError: a score is no probability (or, before calibration, no finite number).
        """
        deadline = time.monotonic() + self._timeout

        def ask(pairs: list[Pair]) -> npt.NDArray[np.floating]:
            return self._ask(pairs, time.monotonic() + self._timeout if self._each else deadline)

        return score_pairs(texts, rows, self._documents, ask, self._batch, self._calibration)

    def _ask(self, pairs: list[Pair], deadline: float) -> npt.NDArray[np.floating]:
        body, headers = encode(self._inputs.tensors(pairs), self._output, self._binary)
        most = 2**20 + 256 * len(pairs)
        tenacity = self._tenacity
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            stop=tenacity.stop_after_attempt(self._retries + 1) | tenacity.stop_before_delay(deadline - time.monotonic()),
            wait=tenacity.wait_exponential(_FIRST_WAIT),
            reraise=True,
        )
        try:
            scores: npt.NDArray[np.floating] = again(self._once, body, headers, deadline, most)
            return scores
        except _PassingError as error:  # after a timeout no time is left: it is that of the whole call
            raise ScorerUnavailableError(f"POST {self._url}, {self._timeout:g} s for all: {error}") from error

    def _once(self, body: bytes, headers: dict[str, str], deadline: float, most: int) -> npt.NDArray[np.floating]:
        if time.monotonic() >= deadline:
            raise ScorerUnavailableError(f"POST {self._url}, {self._timeout:g} s for all: no time left")
        try:
            status, answer, json_length = self._post(body, headers, deadline, most)
        except self._httpx.TransportError as error:
            raise _PassingError(f"{type(error).__name__}: {error}"[:_SHOWN]) from error
        if status == 200:
            return decode(answer, json_length, self._output, self._model, self._version)
        failure = f"status {status}: {answer[:_SHOWN].decode('utf-8', 'replace')}"
        if status >= 500:
            raise _PassingError(failure)
        if status == 429:
            raise ScorerUnavailableError(f"POST {self._url}, {self._timeout:g} s for all: {failure}")
        raise ScorerMismatchError(f"POST {self._url}: {failure}")

    def _post(self, body: bytes, headers: dict[str, str], deadline: float, most: int) -> tuple[int, bytes, str | None]:
        left = max(0.001, deadline - time.monotonic())
        parts: list[bytes] = []
        with self._client.stream("POST", self._url, content=body, headers=headers, timeout=left) as response:
            for part in response.iter_raw():
                parts.append(part)
                if sum(map(len, parts)) > most:
                    raise ScorerMismatchError(f"POST {self._url}: the answer is longer than {most} bytes")
            return response.status_code, b"".join(parts), response.headers.get(JSON_LENGTH)
