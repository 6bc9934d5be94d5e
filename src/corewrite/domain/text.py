"""One tokenisation of free text into words, shared by every part that counts or compares words."""

import re
import unicodedata

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
