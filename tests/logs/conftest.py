"""Hand-made logs: searches written out in seconds, as the reader gets them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from corewrite.logs import SearchLog, read_log

T0 = 1_700_000_000.0


@dataclass(frozen=True)
class Search:
    """A search at second `at`; clicks are document: (watch seconds, duration, seconds after the search)."""

    user: str
    at: float
    text: str
    hits: Sequence[str] = ()
    clicks: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    titles: Sequence[str] = ()
    session: str = ""


@pytest.fixture
def make_log(tmp_path: Path) -> Callable[[Sequence[Search]], SearchLog]:
    """Writes searches as a UBI log, with query ids 0, 1, ... in the order given, and reads it."""

    def make(searches: Sequence[Search]) -> SearchLog:
        lines = []
        for number, s in enumerate(searches):
            common = {"query_id": str(number), "client_id": s.user}
            attributes = {"session_id": s.session, "context_titles": list(s.titles)}
            lines.append(
                common
                | {"user_query": s.text, "timestamp": T0 + s.at}
                | {"query_response_hit_ids": list(s.hits), "query_attributes": attributes}
            )
            for document, (watch, duration, delay) in s.clicks.items():
                thing = {"object": {"object_id": document}, "position": {"ordinal": 1}}
                thing |= {"watch_seconds": watch, "duration_seconds": duration}
                time = T0 + s.at + delay
                lines.append(common | {"action_name": "click", "timestamp": time, "event_attributes": thing})
        path = tmp_path / "made.ndjson"
        path.write_text("\n".join(map(json.dumps, lines)))
        return read_log(path)

    return make


@pytest.fixture
def search() -> type[Search]:
    """The class of a hand-made search."""
    return Search
