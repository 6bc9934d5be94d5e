"""Untrusted text as a reader sees it: what is not seen, and what would be obeyed, is spelled out."""

import re
import unicodedata

BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
"""Letters and marks that are drawn as nothing: those that Unicode lets a program ignore, and the empty Braille cell."""
_LAYOUT = re.compile(r"\s+")
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # Part of the spelling of Persian and Indic words and of emoji.
# One after a character says which form of it is meant, of a picture or a name; a run of them holds text that nobody sees.
_SELECTOR = re.compile("(?<![\\s\ufe00-\ufe0f\U000e0100-\U000e01ef])(?<!^)[\ufe00-\ufe0f\U000e0100-\U000e01ef]|(.)", re.DOTALL)


def visible(text: str) -> str:
    """Untrusted text on one line, its control, format and invisible characters (escapes, bidirectional overrides) spelled out.

    Such characters could make a title read as another one, or drive a terminal. Markup is left as it is: escaping is
    the template's.
    """
    return spelled(_LAYOUT.sub(" ", text).strip())


def spelled(text: str, keep: str = "") -> str:
    """As `visible`, with the white space left as it is.

    Args:
        text: The text.
        keep: Control characters to leave too, such as the line feed between lines of ours.
    """
    if text.isascii() and text.isprintable():
        return text
    return _SELECTOR.sub(lambda found: found[0] if found[1] is None or found[1] in keep else _spelled(found[1]), text)


def _spelled(character: str) -> str:
    hidden = (
        unicodedata.category(character) in _HIDDEN or character in BLANK or _is_selector(character) or _is_reserved(character)
    )
    return f"<U+{ord(character):04X}>" if hidden and character not in _JOINERS else character


def _is_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def _is_reserved(character: str) -> bool:
    """Whether it is no character yet, and Unicode has programs leave it out already."""
    return character == "\u2065" or "\ufff0" <= character <= "\ufff8" or "\U000e0000" <= character <= "\U000e0fff"
