"""Which prompt template a model begins with, and what it is for the model's tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from corewrite.rewriter.examples import Example
from corewrite.rewriter.skeleton import Renderer
from corewrite.rewriter.template import special_tokens
from corewrite.rewriter.template_config import CHAT, FEW_SHOT, JINJA, RESERVED, TemplateConfig
from corewrite.rewriter.text_encoder import TextEncoder

INSTRUCTION = "Rewrite the search query so that a search engine finds what the user wants. Answer with the rewrite alone."
"""What a model is told to do where nothing else is said."""
MESSAGE = """\
{% if locale %}
Language: {{ locale }}
{% endif %}
{% for title in titles %}
Seen before: {{ title }}
{% endfor %}
{% for earlier in queries %}
Earlier query: {{ earlier }}
{% endfor %}
Query: {{ query }}"""
"""A query and its context as one message, where nothing else is said."""
_FEW_SHOT = """\
{% for message in messages %}
{{ "Rewrite: " if message.role == "assistant" }}{{ message.content }}
{% endfor %}
Rewrite:"""
_LINE_END = "\n"


@dataclass(frozen=True)
class TemplateChoice:
    """A prompt template as a team chooses it, for a model that is no rewriter yet.

    Attributes:
        kind: `reserved`: tokens of the template's own, which a warm start gives a meaning; `chat`: the model's chat template;
            `few_shot`: plain text, an example after the other; `jinja`: a template of the team's own.
        source: Jinja, of kind jinja.
        message: Jinja of a query and its context as one message of a user; of kinds chat and few_shot.
        instruction: What the model is told to do; empty: nothing.
        examples: Queries with their rewrites, shown in every prompt.
        end: Text of the one token that ends a rewrite; empty: what the chat template puts behind what the model says, a
            line's end of kind few_shot, else the tokenizer's end-of-sequence token.
        max_tokens, titles, queries, part_tokens: As of `TemplateConfig`; None: as the model allows.
    """

    kind: str = RESERVED
    source: str = ""
    message: str = MESSAGE
    instruction: str = INSTRUCTION
    examples: Sequence[Example] = ()
    end: str = ""
    max_tokens: int | None = None
    titles: int | None = None
    queries: int | None = None
    part_tokens: int | None = None

    def config(self, tokenizer: Any, limits: TemplateConfig) -> TemplateConfig:
        """The template for a tokenizer.

        Args:
            tokenizer: A fast tokenizer of transformers.
            limits: What else a prompt would hold, with the home locale.

        Raises:
            ValueError: the tokenizer has no chat template, or the template cannot be used.
        """
        given = {name: getattr(self, name) for name in ("max_tokens", "titles", "queries", "part_tokens")}
        limits = replace(limits, **{name: value for name, value in given.items() if value is not None})
        if self.kind == RESERVED:
            return limits
        chosen = replace(
            limits,
            format=3,
            kind=self.kind,
            source=self._source(tokenizer),
            message="" if self.kind == JINJA else self.message,
            instruction=self.instruction,
            examples=tuple(self.examples),
            end=self.end or (_LINE_END if self.kind == FEW_SHOT else ""),
        )
        if self.kind == CHAT and not self.end:
            behind = Renderer(chosen, special_tokens(tokenizer)).around_answer()[1].lstrip()
            ends = (token for token in TextEncoder(tokenizer).reserved if token.strip() and behind.startswith(token))
            chosen = replace(chosen, end=next(ends, ""))
        return chosen

    def _source(self, tokenizer: Any) -> str:
        if self.kind == FEW_SHOT:
            # A tokenizer that begins every text with a token has a model that was trained so.
            begins = tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]
            return ("{{ bos_token }}" if begins else "") + _FEW_SHOT
        if self.kind != CHAT:
            return self.source
        found = tokenizer.chat_template
        found = found.get("default") if isinstance(found, dict) else found
        if not found:
            raise ValueError("the tokenizer has no chat template: choose few_shot, jinja or reserved")
        return str(found)
