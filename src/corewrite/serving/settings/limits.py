"""Settings of what a request may be."""

from pydantic import Field

from corewrite.domain import Settings
from corewrite.serving.settings.rewriter import Milliseconds


class Limits(Settings):
    """What a request may be; more is refused."""

    body_bytes: int = Field(default=256 * 2**10, ge=1024)
    """Bytes of a body."""
    query_characters: int = Field(default=512, ge=1)
    """Characters of a query, of an earlier one or of a title."""
    context_items: int = Field(default=50, ge=0)
    """Earlier queries, and titles, of a context."""
    batch: int = Field(default=64, ge=1)
    """Queries of one rewrite request."""
    events: int = Field(default=1_000, ge=1)
    """Events of one request."""
    depth: int = Field(default=100, ge=1)
    """Results of a search."""
    in_flight: int = Field(default=512, ge=1)
    """Requests worked on at a time by each worker, whatever `queue_ms` lets in; more get 429."""
    queue_ms: Milliseconds | None = None
    """Wait for the ranking that is aimed at, the least of 0.1 s, milliseconds: as many searches are worked on at
    a time as keep to it, more get 429 (CoDel). None: a sixth of `deadlines.finerank`."""
    connections: int = Field(default=1024, ge=16)
    """Connections open at a time to each worker, fewer where it may open fewer files (`ulimit -n`): for a new one, that which
    has waited longest for its client is closed."""
    header_seconds: float = Field(default=5.0, gt=0, le=60)
    """How long the head of a request may take to come, seconds; then the connection is closed."""
    body_seconds: float = Field(default=10.0, gt=0, le=600)
    """How long a body may take to come, and a client to read an answer, seconds."""
