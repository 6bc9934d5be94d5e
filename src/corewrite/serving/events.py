"""What users did, taken in over HTTP and written into the log of what was served: UBI 1.3.0 events."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, field_validator

from corewrite.logs.times import iso, parse_time
from corewrite.logs.writer import APPLICATION

Id = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]


class _Lenient(BaseModel):
    # A collector sends what its front end sends: names that are not known are left out of the log, not refused.
    model_config = ConfigDict(extra="ignore", frozen=True)


class EventObject(_Lenient):
    """What the event is about."""

    object_id: Annotated[str | int, Field(description="Document id.")]
    object_id_type: Annotated[str, StringConstraints(max_length=100)] = "video"

    @field_validator("object_id")
    @classmethod
    def _short(cls, value: str | int) -> str:
        if not 0 < len(str(value)) <= 256:
            raise ValueError("a document id has 1 to 256 characters")
        return str(value)


class EventPosition(_Lenient):
    """Where it was displayed."""

    ordinal: int | None = Field(default=None, ge=0, lt=2**31, description="1 is the top.")


class EventAttributes(_Lenient):
    """Details: of these alone the log keeps something."""

    object: EventObject | None = None
    position: EventPosition = EventPosition()
    watch_seconds: Seconds | None = Field(default=None, description="How long it was watched.")
    duration_seconds: Seconds | None = Field(default=None, description="How long it is.")


class Event(_Lenient):
    """A UBI 1.3.0 event."""

    action_name: Id = Field(description="click, watch, view, impression, add_to_cart, purchase, ...")
    query_id: Id = Field(description="As the search's answer gave it.")
    timestamp: str | float = Field(description="ISO 8601, or an epoch in seconds or milliseconds.")
    client_id: Annotated[str, StringConstraints(max_length=128)] = Field(default="", description="Only its hash is logged.")
    session_id: Annotated[str, StringConstraints(max_length=128)] = Field(default="", description="Only its hash is logged.")
    event_attributes: EventAttributes = EventAttributes()

    @field_validator("timestamp")
    @classmethod
    def _time(cls, value: str | float) -> float:
        return parse_time(value)


@dataclass(frozen=True)
class EventLine:
    """An event as it stands in the log."""

    document: Mapping[str, JsonValue]

    def encoded(self) -> bytes:
        """The line, with its end."""
        text = json.dumps(self.document, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "replace") + b"\n"


def event_line(event: Event, hasher: Callable[[str], str]) -> EventLine:
    """The line of the log: names hashed as those of searches are, free texts left out."""
    about = event.event_attributes
    attributes: dict[str, JsonValue] = {
        "position": {} if about.position.ordinal is None else {"ordinal": about.position.ordinal}
    }
    if about.object is not None:
        attributes["object"] = about.object.model_dump()
    numbers = {"watch_seconds": about.watch_seconds, "duration_seconds": about.duration_seconds}
    attributes |= {name: value for name, value in numbers.items() if value is not None}
    document: dict[str, JsonValue] = {
        "application": APPLICATION,
        "action_name": event.action_name,
        "query_id": event.query_id,
        "client_id": hasher(event.client_id) if event.client_id else "",
        "session_id": hasher(event.session_id) if event.session_id else "",
        "timestamp": iso(float(event.timestamp)),
        "event_attributes": attributes,
    }
    return EventLine(document)
