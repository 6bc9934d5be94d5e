"""A prompt without its user texts: a template, rendered with sentinels in their place and taken apart at them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from corewrite.domain import Query
from corewrite.rewriter.sandbox import TemplateRenderError, compile_template
from corewrite.rewriter.template_config import FIRST_SENTINEL, JINJA, LAST_SENTINEL, TemplateConfig
from corewrite.rewriter.text_encoder import Before, TextEncoder

Part = Literal["query", "title", "earlier", "locale"]
Text = tuple[Part, int] | str
"""A place for a text of the query (which of them, from the oldest on), or a text of an example, the same in all prompts."""
_NAMES = {"query": "query", "title": "titles", "earlier": "earlier queries"}
_SENTINEL = re.compile(f"{FIRST_SENTINEL}([0-9]+){LAST_SENTINEL}")


@dataclass(frozen=True)
class Slot:
    """A place for a user text.

    Attributes:
        part, index: Which text.
        before: What it stands behind; None: it is encoded alone.
    """

    part: Part
    index: int
    before: Before | None = None


@dataclass(frozen=True)
class Skeleton:
    """A prompt as token ids with places for texts.

    Attributes:
        pieces: In order.
        answer: What the rewrite stands behind; None: it is encoded alone.
    """

    pieces: tuple[tuple[int, ...] | Slot, ...]
    answer: Before | None = None

    @property
    def size(self) -> int:
        """Tokens of all but the user texts."""
        return sum(len(p) for p in self.pieces if not isinstance(p, Slot))


class Renderer:
    """Renders a template to text with sentinels, `\\ue000NUMBER\\ue001`, for texts.

    No text of a user meets Jinja: what a template does cannot depend on what was typed.

    Args:
        config: A template of format 3.
        specials: The tokenizer's special tokens by name (`bos_token`), which templates may use.

    Raises:
        TemplateRenderError: it is no Jinja that can be used.
    """

    def __init__(self, config: TemplateConfig, specials: Mapping[str, str]) -> None:
        self._config, self._specials = config, specials
        own = config.kind == JINJA
        self._source = compile_template(config.source, "the prompt template" if own else "the chat template", strict=own)
        self._message = None if own else compile_template(config.message, "the message of the prompt template", strict=True)

    def render(self, titles: int, queries: int, locale: bool) -> list[str | Text]:
        """The prompt of a query with so many titles and earlier queries: text of the template, then a place, by turns.

        Raises:
            TemplateRenderError: the template fails, or leaves out or makes up a text.
        """
        places: list[Text] = []

        def place(text: Text) -> str:
            places.append(text)
            return f"{FIRST_SENTINEL}{len(places) - 1}{LAST_SENTINEL}"

        asked = {
            "query": place(("query", 0)),
            "queries": [place(("earlier", i)) for i in range(queries)],
            "titles": [place(("title", i)) for i in range(titles)],
            "locale": place(("locale", 0)) if locale else "",
        }
        wanted = {n for n, text in enumerate(places) if text[0] != "locale"}
        shown = [{**_shown(e.query, place), "rewrite": place(e.target)} for e in self._config.examples]
        if self._message is None:
            text = self._source({**self._specials, "instruction": self._config.instruction, "examples": shown, **asked})
        else:
            text = self._source(self._chat(self._messages(self._message, shown, asked)))
        found: list[str | Text] = _SENTINEL.split(text)  # type: ignore[assignment]  # numbers are at odd places
        numbers = [int(n) for n in found[1::2]]  # type: ignore[arg-type]
        if left_out := wanted - set(numbers):
            name = _NAMES[places[min(left_out)][0]]
            raise TemplateRenderError(f"the prompt template leaves out the {name}: it must stand there, whatever it holds")
        if any(n >= len(places) for n in numbers) or {FIRST_SENTINEL, LAST_SENTINEL} & set("".join(map(str, found[::2]))):
            raise TemplateRenderError("the prompt template changes the texts it is given: it may only place them")
        found[1::2] = [places[n] for n in numbers]
        return found

    def around_answer(self) -> tuple[str, str]:
        """What a chat template puts before and behind what the model said; of kind jinja nothing.

        Raises:
            TemplateRenderError: the template fails, or leaves out what the model says.
        """
        if self._message is None:
            return "", ""
        said = f"{FIRST_SENTINEL}0{LAST_SENTINEL}"
        ask = {"query": "a", "queries": [], "titles": [], "locale": ""}
        messages = [*self._messages(self._message, [], ask), {"role": "assistant", "content": said}]
        before, found, behind = self._source({**self._chat(messages), "add_generation_prompt": False}).rpartition(said)
        if not found:
            raise TemplateRenderError("the chat template leaves out what the model says")
        return before, behind

    def _messages(
        self, message: Callable[[Mapping[str, Any]], str], shown: list[dict[str, Any]], asked: dict[str, Any]
    ) -> list[dict[str, str]]:
        instruction = self._config.instruction
        messages = [{"role": "system", "content": instruction}] if instruction else []
        for example in shown:
            messages.append({"role": "user", "content": message(example)})
            messages.append({"role": "assistant", "content": example["rewrite"]})
        return [*messages, {"role": "user", "content": message(asked)}]

    def _chat(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """What transformers gives a chat template; a rewriter does not think aloud."""
        asked = {
            "messages": messages,
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
            "enable_thinking": False,
        }
        return {**self._specials, **asked}


def build_skeleton(rendered: list[str | Text], encoder: TextEncoder) -> Skeleton:
    """Token ids of what `Renderer.render` gave."""
    pieces: list[tuple[int, ...] | Slot] = []
    before = Before()
    for at, piece in enumerate(rendered):
        if at % 2 == 0:
            kept, before = encoder.before(str(piece))
            pieces.append(encoder.structure(kept, behind_text=at > 0))
        elif isinstance(piece, str):
            pieces.append(encoder.encode(piece, before))
        else:
            pieces.append(Slot(*piece, before))
    return Skeleton(tuple(pieces), before)


def _shown(query: Query, place: Callable[[Text], str]) -> dict[str, Any]:
    c = query.context
    return {
        "query": place(query.text),
        "queries": [place(q) for q in c.queries],
        "titles": [place(t) for t in c.titles],
        "locale": place(c.locale) if c.locale else "",
    }
