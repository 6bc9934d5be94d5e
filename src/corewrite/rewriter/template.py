"""The one prompt builder: warm start, sampler, trainer and server all use its token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from corewrite.domain import Query
from corewrite.rewriter.skeleton import Renderer, Skeleton, Slot, build_skeleton
from corewrite.rewriter.template_config import RESERVED, TemplateConfig
from corewrite.rewriter.text_encoder import TextEncoder

TITLE, EARLIER, QUERY, REWRITE = "<|title|>", "<|earlier|>", "<|query|>", "<|rewrite|>"
MARKS = (TITLE, EARLIER, QUERY, REWRITE)


class PromptTooLongError(ValueError):
    """A query that does not fit the prompt even without its context."""


class PromptTemplate:
    """Builds prompts as token ids: a skeleton that no user text can change, and the texts' ids in its places.

    Of reserved tokens it is `title* earlier* query rewrite`, each part behind a token that no user text can make. In format 2 a
    locale other than the home one stands before all, behind the token that else only ends a prompt: so a prompt without it is
    that of format 1, token by token, no vocabulary has to grow, and nothing a user types can stand for a locale.

    The other kinds are rendered by Jinja, once for each number of titles and earlier queries, with sentinels for the texts
    (`Renderer`), so that no text meets Jinja or is parsed for special tokens.

    Args:
        tokenizer: A fast tokenizer of transformers.
        config: What prompts hold.

    Raises:
        ValueError: the template fails, leaves no room for a query, or ends with what is not one token.
    """

    def __init__(self, tokenizer: Any, config: TemplateConfig) -> None:
        self.config = config
        self._tokenizer = tokenizer
        self._texts = TextEncoder(tokenizer)
        self._marks = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in MARKS} if config.kind == RESERVED else {}
        self._renderer = None if config.kind == RESERVED else Renderer(config, special_tokens(tokenizer))
        self._skeleton = lru_cache(maxsize=4096)(self._build_skeleton)
        self._own = self._skeleton(0, 0, False)
        self.end_id = self._find_end()
        self._answer = self._own.answer
        self.truncated = 0
        if self._renderer is not None:
            self._skeleton(config.titles, config.queries, True)  # what fails shall fail now
            # As in the answers that the model was trained on, where a blank often stands before them.
            _, usual = self._texts.before(self._renderer.around_answer()[0])
            self._answer = replace(self._own.answer, blank=self._own.answer.blank or usual.blank) if self._own.answer else None
            if self.room < 1:
                raise ValueError(
                    f"the prompt template alone takes {self._own.size} tokens of {config.max_tokens}: raise max_tokens"
                )

    @property
    def room(self) -> int:
        """Tokens that a query may have."""
        return self.config.max_tokens - self._own.size

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of user text; reserved tokens in it are taken out first, so it cannot change the prompt's structure.

        Half characters (lone surrogates) have no encoding: each stands as the replacement character, U+FFFD.
        """
        return self._texts.encode(text)

    def too_long(self, query: Query) -> str | None:
        """Why no prompt holds the query even without its context; None where one does."""
        tokens, limit = len(self._filled(self._own, {"query": (query.text,)})), self.config.max_tokens
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
        if why := self.too_long(query):
            raise PromptTooLongError(f"{why}: {query.text[:60]!r}")
        titles = c.titles[max(0, len(c.titles) - limit.titles) :]
        queries = c.queries[max(0, len(c.queries) - limit.queries) :]
        locale = limit.said_locale(c.locale) if limit.format > 1 else ""
        said = bool(self.encode_text(locale))
        for dropped in range(len(titles) + len(queries) + 1):
            t, q = titles[dropped:], queries[max(0, dropped - len(titles)) :]
            texts: Mapping[str, Sequence[str]] = {"query": (query.text,), "title": t, "earlier": q, "locale": (locale,)}
            prompt = self._filled(self._skeleton(len(t), len(q), said), texts)
            if len(prompt) <= limit.max_tokens:
                self.truncated += dropped > 0
                return prompt
        self.truncated += 1
        return self._filled(self._own, {"query": (query.text,)})

    def holds_reserved(self, ids: Sequence[int]) -> bool:
        """Whether a reserved token is among the ids."""
        return not self._texts.reserved_ids.isdisjoint(ids)

    def encode_rewrite(self, text: str) -> tuple[int, ...]:
        """Token ids of a text as a rewrite, behind the prompt, without the token that ends it."""
        return self._texts.encode(text, self._answer)

    def encode_target(self, text: str) -> list[int]:
        """Response ids of a text to be learnt, the token that ends it included."""
        return [*self.encode_rewrite(text), self.end_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of response ids, reserved tokens left out."""
        return str(self._tokenizer.decode([i for i in ids if i not in self._texts.reserved_ids]))

    def _filled(self, skeleton: Skeleton, texts: Mapping[str, Sequence[str]]) -> list[int]:
        prompt: list[int] = []
        for piece in skeleton.pieces:
            if isinstance(piece, Slot):
                ids = self._texts.encode(texts[piece.part][piece.index], piece.before)
                prompt += ids if piece.part == "query" else ids[: self.config.part_tokens]
            else:
                prompt += piece
        return prompt

    def _build_skeleton(self, titles: int, queries: int, locale: bool) -> Skeleton:
        if self._renderer is not None:
            return build_skeleton(self._renderer.render(titles, queries, locale), self._texts)
        slots = [(REWRITE, Slot("locale", 0))] if locale else []
        slots += [(TITLE, Slot("title", i)) for i in range(titles)] + [(EARLIER, Slot("earlier", i)) for i in range(queries)]
        slots += [(QUERY, Slot("query", 0))]
        pieces = [piece for mark, slot in slots for piece in ((self._marks[mark],), slot)]
        return Skeleton((*pieces, (self._marks[REWRITE],)))

    def _find_end(self) -> int:
        if not self.config.end:
            return int(self._tokenizer.eos_token_id)
        ids = self._texts.structure(self.config.end, behind_text=True)
        if len(ids) != 1:
            raise ValueError(f"end of the prompt template, {self.config.end!r:.50}, must be one token, not {len(ids)}")
        return ids[0]


def special_tokens(tokenizer: Any) -> dict[str, str]:
    """The tokenizer's special tokens by name, which templates may use (`bos_token`, `eos_token`)."""
    return {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
