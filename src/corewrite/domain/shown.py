"""Untrusted text as a reader sees it."""

import re
import unicodedata

_LAYOUT = re.compile(r"\s+")
_HIDDEN = ("Cc", "Cf", "Cs")
_JOINERS = "\u200c\u200d"  # Part of the spelling of Persian and Indic words and of emoji.


def visible(text: str) -> str:
    """Untrusted text on one line, with its control and format characters (bidirectional overrides, escapes) spelled out.

    Such characters could make a title read as another one, or drive a terminal. Markup is left as it is: escaping is
    the template's.
    """
    line = _LAYOUT.sub(" ", text).strip()
    return "".join(f"<U+{ord(c):04X}>" if unicodedata.category(c) in _HIDDEN and c not in _JOINERS else c for c in line)
