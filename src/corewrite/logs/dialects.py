"""Names that UBI had before version 1.3.0, and the actions that are read.

Query records named the displayed documents `query_response_object_ids` in UBI 1.0 to 1.2, and `query_response_objects_ids` in
drafts of it and in the plugin's documentation; the client was `user_id` there. Events had the position as `{"index": 3}`, and
in drafts the document as `data.data_id`.
"""

from collections.abc import Mapping
from typing import Any, Final

HIT_IDS: Final = ("query_response_hit_ids", "query_response_object_ids", "query_response_objects_ids")
"""Names of the displayed documents, the present one first."""
SHOWN: Final = ("impression", "view")
"""Actions that say what was displayed."""
CONVERTED: Final = ("purchase", "add_to_cart")
"""Actions that say that a document was what was wanted."""
CHOSEN: Final = ("click", "watch", *CONVERTED)
"""Actions that say what was chosen; satisfaction is derived from them."""
KNOWN_ACTIONS: Final = (*CHOSEN, *SHOWN)
_ACTIONS: Final = {"click_through": "click", "item_click": "click"}


def parse_action(name: str) -> str:
    """The action under its present name; one that is not known stays as it is."""
    return _ACTIONS.get(name, name)


def parse_hits(query: Mapping[str, Any]) -> tuple[str, Any]:
    """The displayed documents of a query record, and the name they stand under; an empty list where it has none."""
    name = next((n for n in HIT_IDS if query.get(n)), HIT_IDS[0])
    return name, query.get(name) or []


def parse_client(record: Mapping[str, Any]) -> Any:
    """The client of a query or an event, or what stands in its place."""
    return record.get("client_id") or record.get("user_id") or ""


def parse_document(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """`event_attributes.object`, or the same of an event of the drafts.

    Raises:
        ValueError: it is no object.
    """
    found = attributes.get("object")
    if not found and isinstance(data := attributes.get("data"), dict):
        found = {"object_id": data.get("data_id", data.get("object_id"))}
    if found is not None and not isinstance(found, dict):
        raise ValueError("event_attributes.object or .position is not an object")
    return found or {}


def parse_ordinal(position: Mapping[str, Any]) -> Any:
    """`position.ordinal`, which was an object with an `index` in UBI 1.0."""
    found = position.get("ordinal")
    return found.get("index") if isinstance(found, dict) else found
