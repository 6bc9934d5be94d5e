"""What a prompt template is: the part of a policy that says how queries become prompts."""

import json
from dataclasses import dataclass
from typing import Any

from corewrite.domain import normalise, query_from_json, query_to_json
from corewrite.rewriter.examples import Example

FORMATS = (1, 2, 3)
RESERVED, CHAT, FEW_SHOT, JINJA = "reserved", "chat", "few_shot", "jinja"
KINDS = (RESERVED, CHAT, FEW_SHOT, JINJA)
LONGEST_SOURCE = 65_536
"""Characters of a template's text at most; the longest chat templates of published models have some 20,000."""
MOST_PARTS = 64
"""Titles, and earlier queries, at most of a template that is rendered."""
MOST_EXAMPLES = 64
"""Examples that a prompt shows at most."""
FIRST_SENTINEL, LAST_SENTINEL = "\ue000", "\ue001"
"""Private-use characters that stand around the number of a text while a template is rendered."""
_TEXTS = ("source", "message", "instruction", "end")
_OF_FORMAT_3 = {"kind", "examples", *_TEXTS}


def folded_locale(locale: str) -> str:
    """A language tag in one form: tags differ neither by case nor, as programs write them, by their hyphens."""
    return normalise(locale).replace("_", "-")


@dataclass(frozen=True)
class TemplateConfig:
    """What a prompt holds, and how it is written.

    Attributes:
        max_tokens: Tokens of a prompt at most.
        titles: Titles (or earlier answers) of the context at most, the latest.
        queries: Earlier queries at most, the latest.
        part_tokens: Tokens of one title, earlier query or locale at most.
        home_locale: The locale that goes without saying: prompts leave it out, as they do where
            none is known. Of formats 2 and 3.
        format: 3 of the kinds that are rendered; 2, or 1, whose prompts leave every locale out, of reserved tokens. A policy
            keeps the format that it was trained with.
        kind: `reserved`, or what is rendered: `chat`, `few_shot`, `jinja`.
        source: Jinja of what is rendered: of `messages` (chat, few_shot), or of the query and its context (jinja).
        message: Jinja of a query and its context as one message of a user (chat, few_shot).
        instruction: What the model is told to do; the system message.
        examples: Queries with their rewrites that every prompt shows.
        end: Text of the one token that ends a rewrite; empty: the tokenizer's end-of-sequence token.
    """

    max_tokens: int = 96
    titles: int = 3
    queries: int = 2
    part_tokens: int = 24
    home_locale: str = ""
    format: int = 2
    kind: str = RESERVED
    source: str = ""
    message: str = ""
    instruction: str = ""
    examples: tuple[Example, ...] = ()
    end: str = ""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "titles", "queries", "part_tokens", "format"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} of the prompt template must be an integer of at least 0, not {value!r:.50}")
        if self.format not in FORMATS:
            raise ValueError(f"this prompt template has format {self.format}, which this version of corewrite does not know")
        if not isinstance(self.home_locale, str):
            raise ValueError(f"home_locale of the prompt template must be a language tag, not {self.home_locale!r:.50}")
        if self.kind not in KINDS or (self.kind == RESERVED) != (self.format < 3):
            raise ValueError(f"kind of a prompt template of format {self.format} cannot be {self.kind!r:.50}")
        if self.format < 3 and (self.examples or any(getattr(self, name) for name in _TEXTS)):
            raise ValueError("a prompt template of reserved tokens has neither Jinja nor instruction, examples and end")
        for name in _TEXTS:
            _check_text(name, getattr(self, name))
        if self.format == 3 and not self.source:
            raise ValueError(f"a prompt template of kind {self.kind} needs a source")
        if self.format == 3 and max(self.titles, self.queries) > MOST_PARTS:
            raise ValueError(
                f"a prompt template of kind {self.kind} holds {MOST_PARTS} titles and {MOST_PARTS} queries at most"
            )
        if (self.kind in (CHAT, FEW_SHOT)) != bool(self.message):
            raise ValueError(f"message of a prompt template of kind {self.kind} cannot be {self.message!r:.50}")

    def to_json(self) -> str:
        """Canonical JSON."""
        value = dict(self.__dict__)
        if self.format < 3:
            for name in _OF_FORMAT_3:
                del value[name]
        else:
            value["examples"] = [{**query_to_json(e.query), "rewrite": e.target} for e in self.examples]
        if self.format == 1:
            del value["home_locale"]
        return json.dumps(value, sort_keys=True)

    def said_locale(self, locale: str) -> str:
        """The locale as it stands in a prompt of format 2 or 3; empty where it is left out."""
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
        if isinstance(value, dict):
            if value.get("format") != 3:
                known -= _OF_FORMAT_3
            if value.get("format") == 1:
                known.remove("home_locale")
        if not isinstance(value, dict) or value.get("format") not in FORMATS or set(value) - known:
            raise ValueError("this prompt template has a format that this version of corewrite does not know")
        if "examples" in value:
            value["examples"] = _read_examples(value["examples"])
        return cls(**value)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} of the prompt template must be a text, not {value!r:.50}")
    if len(value) > LONGEST_SOURCE:
        raise ValueError(f"{name} of the prompt template has {len(value)} characters; {LONGEST_SOURCE} at most are read")
    if FIRST_SENTINEL in value or LAST_SENTINEL in value:
        raise ValueError(f"{name} of the prompt template holds U+E000 or U+E001, which stand for texts in it: take them out")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{name} of the prompt template holds half a character (a lone surrogate): take it out")


def _read_examples(value: Any) -> tuple[Example, ...]:
    if not isinstance(value, list) or len(value) > MOST_EXAMPLES:
        raise ValueError(f"examples of the prompt template must be a list of {MOST_EXAMPLES} at most, not {value!r:.50}")
    try:
        found = tuple(Example(query_from_json(row), row["rewrite"]) for row in value)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"examples of the prompt template cannot be read: {error!r:.100}") from None
    if wrong := [e.target for e in found if not isinstance(e.target, str)]:
        raise ValueError(f"a rewrite in the examples of the prompt template must be a text, not {wrong[0]!r:.50}")
    return found
