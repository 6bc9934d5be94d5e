"""Settings of the prompt template that a model begins with."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from corewrite.domain import Context, Query, Settings
from corewrite.rewriter import Example, TemplateChoice
from corewrite.rewriter.template_choice import INSTRUCTION, MESSAGE
from corewrite.rewriter.template_config import LONGEST_SOURCE, MOST_EXAMPLES, MOST_PARTS


class ShownExample(Settings):
    """A query with its rewrite, as prompts show it."""

    query: str = Field(min_length=1)
    """The query as typed."""
    rewrite: str = Field(min_length=1)
    """What it should become."""
    context_queries: tuple[str, ...] = ()
    """Earlier queries, oldest first."""
    context_titles: tuple[str, ...] = ()
    """Titles watched or clicked before, or answers shown, oldest first."""
    locale: str = ""
    """BCP 47 language tag."""


class TemplateSettings(Settings):
    """How queries become prompts, for a model that is no rewriter yet; a rewriter keeps its template."""

    kind: Literal["reserved", "chat", "few_shot", "jinja"] = "reserved"
    """`reserved`: tokens of the template's own, which a warm start gives a meaning; `chat`: the model's own chat template;
    `few_shot`: plain text with the examples; `jinja`: the template of `file`."""
    file: Path | None = None
    """Jinja, UTF-8. Of kind jinja the prompt; of chat and few_shot a query and its context as one message, in the place of the
    built-in one."""
    instruction: str = Field(default=INSTRUCTION, max_length=LONGEST_SOURCE)
    """What the model is told to do, of kind chat as the system message; empty: nothing."""
    examples: tuple[ShownExample, ...] = Field(default=(), max_length=MOST_EXAMPLES)
    """Shown in every prompt."""
    end: str = ""
    """Text of the one token that ends a rewrite; empty: what the chat template puts behind what the model says, a line's end of
    kind few_shot, the tokenizer's end-of-sequence token of jinja."""
    max_tokens: int | None = Field(default=None, ge=16)
    """Tokens of a prompt at most; None: 512, or what the model's positions leave beside a rewrite."""
    titles: int | None = Field(default=None, ge=0, le=MOST_PARTS)
    """Titles, or answers, of the context at most, the latest; None: 6."""
    queries: int | None = Field(default=None, ge=0, le=MOST_PARTS)
    """Earlier queries at most, the latest; None: 4."""
    part_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one title, answer, earlier query or locale at most; None: 64."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "TemplateSettings":
        if self.kind == "jinja" and self.file is None:
            raise ValueError("kind jinja needs `file`, the template")
        fields = type(self).model_fields
        told = [name for name in ("file", "instruction", "examples", "end") if getattr(self, name) != fields[name].default]
        if self.kind == "reserved" and told:
            raise ValueError(f"kind reserved has no {told[0]}: leave it out, or choose chat, few_shot or jinja")
        return self

    def load(self) -> TemplateChoice | None:
        """The choice, its file read; None of the default, which leaves a rewriter its own.

        Raises:
            OSError, ValueError: the file cannot be read, or is too long.
        """
        if self == TemplateSettings():
            return None
        text = None if self.file is None else _read(self.file)
        own = self.kind == "jinja"
        return TemplateChoice(
            kind=self.kind,
            source=text if own and text is not None else "",
            message=MESSAGE if own or text is None else text,
            instruction=self.instruction,
            examples=[Example(Query(e.query, _context(e)), e.rewrite) for e in self.examples],
            end=self.end,
            max_tokens=self.max_tokens,
            titles=self.titles,
            queries=self.queries,
            part_tokens=self.part_tokens,
        )


def _context(example: ShownExample) -> Context:
    return Context(example.context_queries, example.context_titles, example.locale)


def _read(file: Path) -> str:
    with file.open("rb") as opened:
        found = opened.read(4 * LONGEST_SOURCE + 1)
    try:
        text = found.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8: {error}") from None
    if len(text) > LONGEST_SOURCE:
        raise ValueError(f"{file} has over {LONGEST_SOURCE:,} characters, more than any prompt template needs")
    return text
