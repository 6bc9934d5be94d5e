"""One tokenisation of free text into words, shared by every part that counts or compares words."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+", re.UNICODE)


def normalise(text: str) -> str:
    """Return `text` in NFKC form, case-folded (in this order), with runs of white space folded to one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """Split normalised `text` into its words (runs of letters and digits), in order, repeats kept."""
    return _WORD.findall(normalise(text))
