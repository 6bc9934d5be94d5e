"""The one prompt builder: warm start, sampler, trainer and server all use its token ids."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import FIFOCache

from corewrite.domain import Query, normalise

TITLE, EARLIER, QUERY, REWRITE = "<|title|>", "<|earlier|>", "<|query|>", "<|rewrite|>"
MARKS = (TITLE, EARLIER, QUERY, REWRITE)
FORMATS = (1, 2)
_REMEMBERED = 10_000_000
"""Characters and tokens of the texts whose ids are kept: many long texts must not fill the memory of a server."""


class PromptTooLongError(ValueError):
    """A query that does not fit the prompt even without its context."""


def folded_locale(locale: str) -> str:
    """A language tag in one form: tags differ neither by case nor, as programs write them, by their hyphens."""
    return normalise(locale).replace("_", "-")


@dataclass(frozen=True)
class TemplateConfig:
    """What a prompt holds.

    Attributes:
        max_tokens: Tokens of a prompt at most.
        titles: Titles of the context at most, the latest.
        queries: Earlier queries at most, the latest.
        part_tokens: Tokens of one title, earlier query or locale at most.
        home_locale: The locale that goes without saying: prompts leave it out, as they do where
            none is known. Of format 2.
        format: 2, or 1, whose prompts leave every locale out; a policy keeps the format that it was trained with.
    """

    max_tokens: int = 96
    titles: int = 3
    queries: int = 2
    part_tokens: int = 24
    home_locale: str = ""
    format: int = FORMATS[-1]

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in self.__dict__.items() if name != "home_locale"}
        for name, value in numbers.items():
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} of the prompt template must be an integer of at least 0, not {value!r:.50}")
        if self.format not in FORMATS:
            raise ValueError(f"this prompt template has format {self.format}, which this version of corewrite does not know")
        if not isinstance(self.home_locale, str):
            raise ValueError(f"home_locale of the prompt template must be a language tag, not {self.home_locale!r:.50}")

    def to_json(self) -> str:
        """Canonical JSON."""
        value = dict(self.__dict__)
        if self.format == 1:
            del value["home_locale"]
        return json.dumps(value, sort_keys=True)

    def said_locale(self, locale: str) -> str:
        """The locale as it stands in a prompt of format 2; empty where it is left out."""
        folded = folded_locale(locale)
        return "" if folded == folded_locale(self.home_locale) else folded

    @classmethod
    def from_json(cls, text: str) -> "TemplateConfig":
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            value = json.loads(text)
        except RecursionError:
            raise ValueError("this prompt template is nested too deeply") from None
        known = set(cls.__dataclass_fields__)
        if isinstance(value, dict) and value.get("format") == 1:
            known.remove("home_locale")
        if not isinstance(value, dict) or value.get("format") not in FORMATS or set(value) - known:
            raise ValueError("this prompt template has a format that this version of corewrite does not know")
        return cls(**value)


class PromptTemplate:
    """Builds `title* earlier* query rewrite` as token ids, each part behind a reserved token that no user text can make.

    In format 2 a locale other than the home one stands before all, behind the token that else only ends a prompt: so a prompt
    without it is that of format 1, token by token, no vocabulary has to grow, and nothing a user types can stand for a locale.
    """

    def __init__(self, tokenizer: Any, config: TemplateConfig) -> None:
        self.config = config
        self._tokenizer = tokenizer
        self._marks = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in MARKS}
        added = {str(t) for t in tokenizer.get_added_vocab()} | set(tokenizer.all_special_tokens)
        self._reserved = sorted(added, key=len, reverse=True)
        self._reserved_ids = {tokenizer.convert_tokens_to_ids(t) for t in self._reserved}
        self._known: FIFOCache[str, tuple[str, tuple[int, ...]]] = FIFOCache(_REMEMBERED, _length)
        self.truncated = 0

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of user text; reserved tokens in it are taken out first, so it cannot change the prompt's structure.

        Half characters (lone surrogates) have no encoding: each stands as the replacement character, U+FFFD.
        """
        found = self._known.get(text)
        if found is not None:
            return found[1]
        safe = " ".join(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").split())
        while any(token in safe for token in self._reserved if token.strip()):
            for token in self._reserved:
                safe = safe.replace(token, " ") if token.strip() else safe
        ids = tuple(self._tokenizer.encode(safe, add_special_tokens=False)) if safe.strip() else ()
        ids = tuple(i for i in ids if i not in self._reserved_ids)
        if len(text) + len(ids) <= self._known.maxsize:
            self._known[text] = text, ids
        return ids

    def too_long(self, query: Query) -> str | None:
        """Why no prompt holds the query even without its context; None where one does."""
        tokens, limit = len(self.encode_text(query.text)) + 2, self.config.max_tokens
        return f"query of {tokens} tokens is over the prompt's limit of {limit}" if tokens > limit else None

    def fitting(self, queries: Sequence[Query]) -> list[int]:
        """Places of the queries that a prompt holds."""
        return [i for i, query in enumerate(queries) if not self.too_long(query)]

    def encode(self, query: Query) -> list[int]:
        """Prompt ids. Over the limit the context loses its oldest parts and last the locale (`truncated` counts such prompts),
        never the query.

        Raises:
            PromptTooLongError: the query alone does not fit.
        """
        c, limit = query.context, self.config
        own = [self._marks[QUERY], *self.encode_text(query.text), self._marks[REWRITE]]
        locale = self._locale(c.locale)
        if why := self.too_long(query):
            raise PromptTooLongError(f"{why}: {query.text[:60]!r}")
        titles = c.titles[max(0, len(c.titles) - limit.titles) :]
        queries = c.queries[max(0, len(c.queries) - limit.queries) :]
        parts = [(TITLE, t) for t in titles] + [(EARLIER, q) for q in queries]
        context: list[int] = []
        if len(locale) + len(own) > limit.max_tokens:
            self.truncated += 1
            return own
        for mark, text in reversed(parts):
            piece = [self._marks[mark], *self.encode_text(text)[: limit.part_tokens]]
            if len(piece) + len(context) + len(locale) + len(own) > limit.max_tokens:
                self.truncated += 1
                break
            context = piece + context
        return locale + context + own

    def _locale(self, locale: str) -> list[int]:
        ids = self.encode_text(self.config.said_locale(locale))[: self.config.part_tokens] if self.config.format > 1 else ()
        return [self._marks[REWRITE], *ids] if ids else []

    def holds_reserved(self, ids: Sequence[int]) -> bool:
        """Whether a reserved token is among the ids."""
        return not self._reserved_ids.isdisjoint(ids)

    def encode_target(self, text: str) -> list[int]:
        """Response ids of a text to be learnt, the end-of-sequence token included."""
        return [*self.encode_text(text), self._tokenizer.eos_token_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of response ids, reserved tokens left out."""
        return str(self._tokenizer.decode([i for i in ids if i not in self._reserved_ids]))


def _length(known: tuple[str, tuple[int, ...]]) -> int:
    """Characters of a text and its tokens."""
    text, ids = known
    return len(text) + len(ids)
