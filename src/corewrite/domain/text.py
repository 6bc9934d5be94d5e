"""One tokenisation of free text into words, shared by every part that counts or compares words."""

import re
import unicodedata
from collections.abc import Collection

_WORD = re.compile(r"[^\W_]+", re.UNICODE)


def normalise(text: str) -> str:
    """Return `text` in NFKC form, case-folded (in this order), with runs of white space folded to one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def is_identity(query: str, rewrite: str | None) -> bool:
    """Whether a rewrite says nothing or what the query says, normalised: then there is none, in ranking and in reward.

    Normalised, because policies learn normalised texts: of "Cat" a policy that leaves the query alone can only say "cat".
    """
    return not rewrite or rewrite == query or normalise(rewrite) in ("", normalise(query))


def words(text: str) -> list[str]:
    """Split normalised `text` into its words (runs of letters and digits), in order, repeats kept."""
    return _WORD.findall(normalise(text))


def drops_protected(query: Collection[str], text: Collection[str], protected: Collection[str]) -> bool:
    """Whether a text lacks a number or a protected word that the query has; all are words as `words` gives them."""
    return any(w not in text and (w in protected or any(c.isdigit() for c in w)) for w in query)
