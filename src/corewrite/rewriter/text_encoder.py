"""User text as token ids: no text makes a special token."""

from dataclasses import dataclass
from typing import Any

from cachetools import FIFOCache

_REMEMBERED = 10_000_000
"""Characters and tokens of the texts whose ids are kept: many long texts must not fill the memory of a server."""


@dataclass(frozen=True)
class Before:
    """What stands before a text in a prompt, as far as tokenizers look.

    Attributes:
        anchor: The special token or character there; empty at a prompt's beginning.
        blank: A single blank between it and the text, which most tokenizers make a part of the text's first token.
    """

    anchor: str = ""
    blank: str = ""


class TextEncoder:
    """Encodes user texts with a tokenizer, all of whose added and special tokens are taken out of them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = {str(t) for t in tokenizer.get_added_vocab()} | set(tokenizer.all_special_tokens)
        self.reserved = sorted(added, key=len, reverse=True)
        self.reserved_ids = {tokenizer.convert_tokens_to_ids(t) for t in self.reserved}
        self._known: FIFOCache[str | tuple[str, Before], tuple[str, tuple[int, ...]]] = FIFOCache(_REMEMBERED, _length)

    def encode(self, text: str, before: Before | None = None) -> tuple[int, ...]:
        """Token ids of user text; reserved tokens in it are taken out first, so it cannot change the prompt's structure.

        Half characters (lone surrogates) have no encoding: each stands as the replacement character, U+FFFD.

        Args:
            text: What a user wrote.
            before: What it stands behind: the ids are those that it has there, where the tokenizer parts the two; None: those
                that it has alone.
        """
        key = text if before is None else (text, before)
        found = self._known.get(key)
        if found is not None:
            return found[1]
        safe = self._safe(text)
        ids = self._behind(safe, before or Before()) if safe.strip() else ()
        ids = tuple(i for i in ids if i not in self.reserved_ids)
        if len(text) + len(ids) <= self._known.maxsize:
            self._known[key] = text, ids
        return ids

    def structure(self, text: str, *, behind_text: bool) -> tuple[int, ...]:
        """Token ids of a part of a template, whose special tokens are parsed.

        Args:
            text: A template's own.
            behind_text: Whether a user text ends where it begins: the ids are those that it has behind a word.
        """
        return self._behind(text, Before("a")) if behind_text and text else self._encoded(text)

    def before(self, text: str) -> tuple[str, Before]:
        """A template's text without the blank that belongs to a user text behind it, and what that text stands behind."""
        blank = " " if text.endswith(" ") and not text[:-1].endswith((" ", "\n")) else ""
        kept = text[: len(text) - len(blank)]
        special = next((t for t in self.reserved if t.strip() and kept.endswith(t)), "")
        return kept, Before(special or kept[-1:], blank)

    def _safe(self, text: str) -> str:
        safe = " ".join(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").split())
        while any(token in safe for token in self.reserved if token.strip()):
            for token in self.reserved:
                safe = safe.replace(token, " ") if token.strip() else safe
        return safe

    def _behind(self, text: str, before: Before) -> tuple[int, ...]:
        if before.anchor:
            anchor, whole = self._encoded(before.anchor), self._encoded(before.anchor + before.blank + text)
            # Where the two became one token, or a special one, the text is encoded alone.
            if whole[: len(anchor)] == anchor:
                return whole[len(anchor) :]
        return self._encoded(before.blank + text)

    def _encoded(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False)) if text else ()


def _length(known: tuple[str, tuple[int, ...]]) -> int:
    """Characters of a text and its tokens."""
    text, ids = known
    return len(text) + len(ids)
