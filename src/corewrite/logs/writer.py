"""Write a search log in UBI 1.3.0: the simulator's and, later, the server's."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from corewrite.logs.times import iso
from corewrite.storage.durable import make_private, naming

APPLICATION = "corewrite"


class UbiWriter:
    """Writes one document per line; a name that ends in .gz is compressed, with the same bytes every time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._raw: IO[bytes] = make_private(path).open("wb")
        zipped = path.suffix == ".gz"
        self._out: IO[bytes] = (
            gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0, compresslevel=3)  # type: ignore[assignment]
            if zipped
            else self._raw
        )

    def __enter__(self) -> "UbiWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with naming(self._path):
            self._out.close()
            self._raw.close()

    def query(
        self,
        *,
        query_id: str,
        client_id: str,
        user_query: str,
        timestamp: float,
        hit_ids: Sequence[str],
        attributes: Mapping[str, Any],
    ) -> None:
        """Write a search: what was asked, by whom, when (seconds since the epoch), what was displayed."""
        self._write(
            {
                "application": APPLICATION,
                "query_id": query_id,
                "client_id": client_id,
                "user_query": user_query,
                "timestamp": iso(timestamp),
                "query_response_id": query_id,
                "query_response_hit_ids": list(hit_ids),
                "query_attributes": dict(attributes),
            }
        )

    def event(
        self,
        action: str,
        *,
        query_id: str,
        client_id: str,
        session_id: str,
        timestamp: float,
        object_id: str,
        ordinal: int,
        **attributes: float,
    ) -> None:
        """Write what a user did to the document displayed at `ordinal` (1 is the top)."""
        self._write(
            {
                "application": APPLICATION,
                "action_name": action,
                "query_id": query_id,
                "session_id": session_id,
                "client_id": client_id,
                "timestamp": iso(timestamp),
                "event_attributes": {
                    "object": {"object_id": object_id, "object_id_type": "video"},
                    "position": {"ordinal": ordinal},
                    **attributes,
                },
            }
        )

    def _write(self, value: dict[str, Any]) -> None:
        with naming(self._path):
            self._out.write(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n")
