"""A connection of opensearch-py over `BoundedTransport`; needs opensearch-py and httpx."""

import time
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
from opensearchpy import Connection
from opensearchpy.exceptions import ConnectionError, ConnectionTimeout

from corewrite.remote.http import BoundedTransport


class BoundedConnection(Connection):
    """For `OpenSearch(url, connection_class=BoundedConnection)`: a time-out is that of a whole request, see `BoundedTransport`.

    Args:
        host: Where the server listens.
        port: Port of it.
        http_auth: User and password, a pair or with a colon between.
        timeout: Seconds of a request.
        more: What opensearch-py says of a connection besides; certificates are checked against those of the system.
    """

    def __init__(
        self, host: str = "localhost", port: int | None = None, http_auth: Any = None, timeout: float = 10.0, **more: Any
    ) -> None:
        super().__init__(host=host, port=port, timeout=timeout, **more)  # type: ignore[arg-type]
        user = tuple(http_auth.split(":", 1)) if isinstance(http_auth, str) else http_auth
        self._http = httpx.Client(
            transport=BoundedTransport(self.host), timeout=timeout, auth=None if user is None else httpx.BasicAuth(*user)
        )

    def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        timeout: float | None = None,
        ignore: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """See opensearch-py.

        Raises:
            ConnectionTimeout: the request was not over in time.
            ConnectionError: no answer, or one that cannot be taken.
            TransportError: the server refused; its status says why.
        """
        target = f"{self.host}{self.url_prefix}{url}" + (f"?{urlencode(params)}" if params else "")
        began, sent = time.monotonic(), {**self.headers, **(headers or {})}
        try:
            response = self._http.request(method, target, content=body, headers=sent, timeout=timeout or self._http.timeout)
            text = response.content.decode("utf-8", "surrogatepass")
        except (httpx.TransportError, UnicodeDecodeError) as error:
            # Not logged as the client would, with a traceback: the error says it all.
            kind = ConnectionTimeout if isinstance(error, httpx.TimeoutException) else ConnectionError
            raise kind("TIMEOUT" if kind is ConnectionTimeout else "N/A", str(error), error) from error
        seconds, status = time.monotonic() - began, response.status_code
        if not 200 <= status < 300 and status not in ignore:
            self._raise_error(status, text)  # as a text: the client takes for granted that JSON of an error is an object
        self.log_request_success(method, target, url, body, status, text, seconds)
        return status, response.headers, text

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
