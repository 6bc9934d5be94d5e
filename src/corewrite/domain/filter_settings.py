"""Settings of the filters that say which rewrites may never be served; imports nothing heavy."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from corewrite.domain.plugins import FILTERS, FactoryName, known_kind
from corewrite.domain.settings import PluginSettings, Settings

FILTER_KINDS = ("terms", "pattern", "python")


class TermsFilter(Settings):
    """Words and phrases of a file, compared word by word, normalised."""

    kind: Literal["terms"]
    """For languages that put blanks between words."""
    file: Path
    """UTF-8, a word or phrase a line; empty lines and those that begin with `#` are passed over."""


class PatternFilter(Settings):
    """A regular expression, searched for anywhere in the text, whatever its case."""

    kind: Literal["pattern"]
    """Searched for in time linear in the text (RE2), so that no pattern hangs a server."""
    pattern: str = Field(min_length=1, max_length=500)
    r"""In RE2's syntax (no lookaround, no backreferences), for texts in NFKC, case-folded, with single blanks. Word boundaries
    (`\b`) are those of ASCII."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        if pattern_matches(pattern, [""])[0]:
            raise ValueError(
                "matches the empty text, so every query has it too and no rewrite is ever stopped: write what must be there"
            )
        return pattern


class PythonFilter(Settings):
    """A filter of your own, made by a function of your own."""

    kind: Literal["python"]
    """Runs the code that `factory` names."""
    factory: FactoryName
    """`package.module:function`, called with the options; gives a function of a `corewrite.domain.Query` and a rewrite that is
    true where the rewrite may not be served."""
    options: dict[str, object] = Field(default_factory=dict)
    """Keyword arguments of the function."""


class PluginFilter(PluginSettings):
    """A filter of an installed package (entry point `corewrite.filters`): its name, and its own options."""

    kind: str = Field(min_length=1)
    """Name of the entry point; what it names is called with all other settings here, and gives what a `factory` does."""

    @model_validator(mode="before")
    @classmethod
    def _installed(cls, value: Any) -> Any:
        return known_kind(FILTERS, FILTER_KINDS, value)


def _tag(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    if not isinstance(kind, str):
        return None
    return kind if kind in FILTER_KINDS else "plugin"


FilterSettings = Annotated[
    Annotated[TermsFilter, Tag("terms")]
    | Annotated[PatternFilter, Tag("pattern")]
    | Annotated[PythonFilter, Tag("python")]
    | Annotated[PluginFilter, Tag("plugin")],
    Discriminator(_tag),
]


class RewriterSection(Settings):
    """What holds of every rewriter, in training, gate and serving alike."""

    filters: tuple[FilterSettings, ...] = ()
    """What a rewrite must never bring in: one that does is not served, counts as the worst of its instance in training, and a
    policy that says one in the gate is refused."""


def pattern_matches(pattern: str, texts: list[str]) -> list[bool]:
    """Whether each text has a match of a pattern, in time linear in the text.

    RE2 compiles to automata and never backtracks; Arrow has it, so that it is no further package.

    Raises:
        ValueError: the pattern is none; the message says what is wrong with it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        found: list[bool] = pc.match_substring_regex(pa.array(texts, pa.string()), pattern, ignore_case=True).to_pylist()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{error} (RE2's syntax: no lookaround, no backreferences)") from error
    return found
