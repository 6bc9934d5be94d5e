"""What a line of `corewrite serve` says beside UBI, under `query_attributes.served`."""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

Texts = Literal["plain", "hashed", "sealed"]
"""How the users' texts stand in a line: as typed, as keyed hashes, or sealed for the cycle alone."""
_KINDS: Final[tuple[Texts, ...]] = get_args(Texts)
_OF_FORMAT_1: Final[dict[bool, Texts]] = {True: "plain", False: "hashed"}


def texts_of(served: Mapping[str, Any]) -> Texts:
    """How the texts of a line stand there.

    Args:
        served: The line's `query_attributes.served`.

    Raises:
        ValueError: it does not say so.
    """
    found = served.get("texts")
    kind = _OF_FORMAT_1.get(found) if isinstance(found, bool) else next((k for k in _KINDS if k == found), None)
    if kind is None:
        raise ValueError(f"served.texts {found!r:.50} is none of {', '.join(_KINDS)}")
    return kind
