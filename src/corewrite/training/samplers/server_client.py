"""HTTP client of a sampling server: what may pass (no connection, 429, 5xx) is tried again, what will not (4xx) is not.

Each attempt ends in its time, from the first packet to the end of the body, and within a size.
"""

import json
import os
from typing import Any
from urllib.parse import urlsplit

from corewrite.domain.extras import from_extra

API_KEY_VARIABLE = "COREWRITE_SERVER_KEY"
_ATTEMPTS = 5
_FIRST_WAIT = 0.5  # seconds, doubled at every further attempt
_CONNECT = 10.0  # seconds
_SHOWN = 200
MOST_BYTES = 2**18
"""Size of an answer at most, where a request names none."""


class SamplingServerError(RuntimeError):
    """A sampling server that cannot be reached, refuses, answers invalidly, or does not hold the policy it was to load."""


class _PassingError(Exception):
    """What may be over at the next attempt."""


class ServerClient:
    """Requests to one server; whatever goes wrong is a `SamplingServerError`.

    Args:
        base_url: Where the server listens, such as `http://localhost:8000`.
        concurrency: Connections at most.
        timeout: Seconds that one attempt may take, head and body.

    Raises:
        ImportError: httpx or tenacity is not installed.
        ValueError: `base_url` is no http address or holds a password, or the key is none that a header can carry.
    """

    def __init__(self, base_url: str, concurrency: int, timeout: float) -> None:
        with from_extra("server", "a sampling server needs httpx and tenacity"):
            import httpx
            import tenacity

            from corewrite.remote.http import BoundedTransport
        address = urlsplit(base_url)
        if address.username or address.password:
            raise ValueError(f"base_url holds a user name or password: give a key in the environment as {API_KEY_VARIABLE}")
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"base_url {base_url!r} is no http address: give one such as http://localhost:8000")
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self._key = os.environ.get(API_KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError(f"{API_KEY_VARIABLE} holds characters that a header cannot carry")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._timeout = timeout
        self._httpx, self._tenacity = httpx, tenacity
        limits = httpx.Limits(max_connections=concurrency)
        self._client = httpx.Client(headers=headers, transport=BoundedTransport(base_url, limits=limits))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def json(self, method: str, path: str, body: dict[str, Any] | None = None, most_bytes: int = MOST_BYTES) -> Any:
        """The answer's JSON; see `send`."""
        said = self.send(method, path, body, most_bytes=most_bytes)
        try:
            return json.loads(said)
        except (ValueError, RecursionError) as error:
            raise SamplingServerError(f"{method} {self.base_url}{path}: the answer is no JSON: {self._shown(said)}") from error

    def send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        attempts: int = _ATTEMPTS,
        most_bytes: int = MOST_BYTES,
    ) -> bytes:
        """The answer's body.

        Args:
            method, path, body: What is asked.
            timeout: Seconds that each attempt may take; None: as for samples.
            attempts: How often it is asked at most.
            most_bytes: Size of the body at most.

        Raises:
            SamplingServerError: there is no such answer.
        """
        tenacity = self._tenacity
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            stop=tenacity.stop_after_attempt(attempts),
            wait=tenacity.wait_exponential(_FIRST_WAIT),
            reraise=True,
        )
        url = f"{self.base_url}{path}"
        try:
            answer: bytes = again(self._once, method, url, body, timeout or self._timeout, most_bytes)
            return answer
        except _PassingError as error:
            raise SamplingServerError(f"{method} {url}, tried {attempts} times: {error}") from error

    def _once(self, method: str, url: str, body: dict[str, Any] | None, seconds: float, most_bytes: int) -> bytes:
        try:
            status, said = self._exchange(method, url, body, seconds, most_bytes)
        except self._httpx.TransportError as error:
            raise _PassingError(f"no answer, {type(error).__name__}: {self._shown(str(error).encode())}") from error
        except SamplingServerError:
            raise
        except Exception as error:  # what the layers below make of an answer that no server should give
            raise SamplingServerError(f"{method} {url}: {type(error).__name__}: {self._shown(str(error).encode())}") from error
        if 200 <= status < 300:
            return said
        failure = f"status {status}: {self._shown(said)}"
        if status == 429 or status >= 500:
            raise _PassingError(failure)
        raise SamplingServerError(f"{method} {url}: {failure}")

    def _exchange(
        self, method: str, url: str, body: dict[str, Any] | None, seconds: float, most_bytes: int
    ) -> tuple[int, bytes]:
        timeout = self._httpx.Timeout(seconds, connect=min(_CONNECT, seconds))
        parts, size = [], 0
        with self._client.stream(method, url, json=body, timeout=timeout) as response:
            for part in response.iter_raw():  # neither unpacked nor decoded: the server names no codec that we run
                parts.append(part)
                size += len(part)
                if size > most_bytes:
                    raise SamplingServerError(f"{method} {url}: the answer is longer than {most_bytes} bytes")
            return response.status_code, b"".join(parts)

    def _shown(self, said: bytes) -> str:
        """The beginning of what a server said, without the key should it say that."""
        text = said[: _SHOWN + len(self._key)].decode("utf-8", "replace")
        return (text.replace(self._key, "***") if self._key else text)[:_SHOWN]
