"""Clean what a language model wrote: one line, no control characters, not too long."""

import unicodedata
from dataclasses import dataclass

from corewrite.domain.shown import BLANK

MAX_CHARACTERS = 120
_NOTHING = BLANK | {"\ufffd"}


@dataclass(frozen=True)
class Cleaned:
    """A cleaned rewrite.

    Attributes:
        text: The text; empty where nothing usable was left (no rewrite).
        malformed: Whether cleaning had to change more than outer and repeated blanks.
    """

    text: str
    malformed: bool


def clean(text: str, limit: int = MAX_CHARACTERS) -> Cleaned:
    """Clean one rewrite.

    Only the first line counts. Control and format characters (categories C*, among them bidirectional overrides), letters that
    are drawn as nothing and U+FFFD, which stands for bytes that are no text, are removed, runs of blanks become one, and a text
    over `limit` characters is cut at a word. What had to be changed counts as malformed.
    """
    lines = text.strip().splitlines()
    first = lines[0] if lines else ""
    kept = "".join(" " if c == "\t" else "" if unicodedata.category(c)[0] == "C" or c in _NOTHING else c for c in first)
    folded = " ".join(kept.split())
    short = folded if len(folded) <= limit else folded[: limit + 1].rsplit(" ", 1)[0][:limit]
    changed = len(lines) > 1 or kept != first or short != folded
    return Cleaned(short, changed or not short)
