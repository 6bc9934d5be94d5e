"""Filters say which rewrites may never be served: used where pairs are selected, by the gate and by the server.

A filter stops what a rewrite brings in. What the query says itself is its user's: with that no policy could ever pass a gate
whose searches hold it.
"""

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from corewrite.domain.filter_settings import (
    FilterSettings,
    PatternFilter,
    PluginFilter,
    PythonFilter,
    TermsFilter,
    pattern_matches,
)
from corewrite.domain.hashing import sha256_json
from corewrite.domain.plugins import FILTERS, load_factory, load_plugin
from corewrite.domain.query import Query
from corewrite.domain.shown import visible
from corewrite.domain.text import is_identity, normalise, words

Phrase = tuple[str, ...]
Refuses = Callable[[Query, str], bool]
_LONGEST, _PATTERN_SECONDS = 120, 0.005
"""Characters of a rewrite, and what a pattern may take on so many."""


class FilterError(ValueError):
    """A filter that cannot be used; the message says which, and why."""


class Rule(ABC):
    """One filter, ready to use."""

    @abstractmethod
    def hits(self, query: Query, rewrites: Sequence[str]) -> list[str | None]:
        """Of each rewrite of a query what stops it, in words; None: nothing."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Hash of all that it stops by; of code, its name and options."""


class _PhraseIndex:
    """Phrases by their first word."""

    def __init__(self, phrases: Sequence[Phrase]) -> None:
        self._by_first: Mapping[str, list[Phrase]] = defaultdict(list)
        for phrase in phrases:
            self._by_first[phrase[0]].append(phrase)

    def find(self, text: Sequence[str]) -> Iterator[Phrase]:
        """Phrases that stand in a text of words, from its beginning on."""
        for at, word in enumerate(text):
            for phrase in self._by_first.get(word, ()):
                if phrase == tuple(text[at : at + len(phrase)]):
                    yield phrase


@dataclass(frozen=True, eq=False)
class TermsRule(Rule):
    """Words and phrases.

    Attributes:
        name: Of the file, for messages.
        phrases: The words of each, normalised.
    """

    name: str
    phrases: tuple[Phrase, ...]

    @cached_property
    def _index(self) -> _PhraseIndex:
        return _PhraseIndex(self.phrases)

    def hits(self, query: Query, rewrites: Sequence[str]) -> list[str | None]:
        """The first phrase in each rewrite that the query does not have."""
        own = set(self._index.find(words(query.text)))
        found = [next((p for p in self._index.find(words(text)) if p not in own), None) for text in rewrites]
        return [None if phrase is None else f"the term '{' '.join(phrase)}' of {self.name}" for phrase in found]

    @property
    def identity(self) -> str:
        """Hash of the phrases, in whatever order."""
        return sha256_json(["terms", sorted(set(self.phrases))])


@dataclass(frozen=True)
class PatternRule(Rule):
    """A regular expression (RE2).

    Attributes:
        pattern: The expression.
    """

    pattern: str

    def hits(self, query: Query, rewrites: Sequence[str]) -> list[str | None]:
        """Of each rewrite that has a match; none where the query has one too."""
        own, *found = pattern_matches(self.pattern, [normalise(text) for text in (query.text, *rewrites)])
        return [f"the pattern '{visible(self.pattern)}'" if match and not own else None for match in found]

    @property
    def identity(self) -> str:
        """Hash of the expression."""
        return sha256_json(["pattern", self.pattern])


@dataclass(frozen=True, eq=False)
class CodeRule(Rule):
    """A function that is not ours.

    Attributes:
        name: Of what made it.
        options: It was made with.
        refuses: True where a rewrite of a query may not be served.
    """

    name: str
    options: Mapping[str, object]
    refuses: Refuses

    def hits(self, query: Query, rewrites: Sequence[str]) -> list[str | None]:
        """Of each rewrite that the function refuses.

        Raises:
            FilterError: it failed, or gave something other than true or false.
        """
        return [f"the filter {self.name}" if self._refuses(query, text) else None for text in rewrites]

    def _refuses(self, query: Query, text: str) -> bool:
        asked = f"the filter {self.name}, asked about the rewrite '{visible(text)}' of '{visible(query.text)}',"
        try:
            answer = self.refuses(query, text)
        except Exception as error:
            raise FilterError(f"{asked} failed ({type(error).__name__}: {error})") from error
        if not isinstance(answer, bool):
            raise FilterError(f"{asked} answered {answer!r:.80}: it has to give True or False")
        return answer

    @property
    def identity(self) -> str:
        """Hash of name and options: what the code does is its owner's to keep."""
        return sha256_json([self.name, dict(self.options)])


class FilterHit(NamedTuple):
    """A rewrite that may not be served.

    Attributes:
        query, rewrite: The texts.
        reason: What stops it, in words.
    """

    query: str
    rewrite: str
    reason: str

    def __str__(self) -> str:
        return f"the rewrite '{visible(self.rewrite)}' of '{visible(self.query)}' is stopped by {self.reason}"


@dataclass(frozen=True)
class RewriteFilters:
    """All filters of a configuration; without any, every rewrite may be served.

    Attributes:
        rules: The filters, in their order.
    """

    rules: tuple[Rule, ...] = ()

    def hits(self, query: Query, rewrites: Sequence[str | None]) -> list[FilterHit | None]:
        """Of each rewrite of a query the first filter that stops it; None: it may be served, or there is none.

        Raises:
            FilterError: a function that is not ours failed.
        """
        found: list[FilterHit | None] = [None] * len(rewrites)
        left = {i: text for i, text in enumerate(rewrites) if text and not is_identity(query.text, text)} if self.rules else {}
        for rule in self.rules:
            for (i, text), reason in zip(list(left.items()), rule.hits(query, list(left.values())), strict=True):
                if reason is not None:
                    found[i] = FilterHit(query.text, text, reason)
                    del left[i]
        return found

    def as_served(self, queries: Sequence[Query], rewrites: Sequence[str | None]) -> list[str | None]:
        """One rewrite per query as a server with these filters has it: None where the query stands.

        Raises:
            FilterError: a function that is not ours failed.
        """
        return [None if self.hits(q, [r])[0] else r for q, r in zip(queries, rewrites, strict=True)]

    @property
    def identity(self) -> list[str]:
        """A hash per filter: a training under others is another training."""
        return [rule.identity for rule in self.rules]


NO_FILTERS = RewriteFilters()
"""Every rewrite may be served."""


def load_filters(settings: Sequence[FilterSettings]) -> RewriteFilters:
    """The filters of the settings, their files read and their code imported.

    Raises:
        FilterError: a term file cannot be read or holds what is no term (named with its line), or a pattern is too slow.
        ValueError: a function or an entry point cannot be imported.
    """
    return RewriteFilters(tuple(_load(s) for s in settings))


def _load(settings: FilterSettings) -> Rule:
    match settings:
        case TermsFilter():
            return TermsRule(str(settings.file), read_terms(settings.file))
        case PatternFilter():
            _check_speed(settings.pattern)
            return PatternRule(settings.pattern)
        case PythonFilter():
            return _code(settings.factory, load_factory(settings.factory), settings.options)
        case PluginFilter():
            return _code(settings.kind, load_plugin(FILTERS, settings.kind), settings.options)


def _code(name: str, factory: Callable[..., object], options: Mapping[str, object]) -> CodeRule:
    made = factory(**options)
    if not callable(made):
        raise FilterError(f"filter {name}: gave a {type(made).__name__}: it has to give a function of a query and a rewrite")
    return CodeRule(name, options, made)


def read_terms(path: Path) -> tuple[Phrase, ...]:
    """The words of each term of a file.

    Raises:
        FilterError: it cannot be read, is not UTF-8, holds no term, or a line of it holds no letter and no digit.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FilterError(f"{path}: cannot read the terms: {error.strerror}") from error
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        at = data[: error.start].count(b"\n") + 1
        raise FilterError(f"{path}:{at}: this is not UTF-8 ({error.reason}): save the file as UTF-8") from error
    terms: list[Phrase] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not (phrase := tuple(words(line))):
            raise FilterError(f"{path}:{number}: '{visible(line)}' holds no letter and no digit: no rewrite could have it")
        terms.append(phrase)
    if not terms:
        raise FilterError(f"{path}: holds no term: write a word or phrase a line, or leave the filter out")
    return tuple(dict.fromkeys(terms))


def _check_speed(pattern: str) -> None:
    """Refuse a pattern whose automaton is so large that every search would wait for it.

    Linear time is not enough: counted repetitions of large classes take tens of milliseconds to compile. The best of several
    tries, since other work on the machine slows single ones.
    """
    texts, best = ["a" * _LONGEST, "é 1" * (_LONGEST // 3)], float("inf")
    for _ in range(5):
        began = time.perf_counter()
        pattern_matches(pattern, texts)
        best = min(best, time.perf_counter() - began)
    if best > _PATTERN_SECONDS:
        raise FilterError(
            f"pattern '{visible(pattern)}' takes {1000 * best:.0f} ms on texts of {_LONGEST} characters, which every search "
            f"would wait for ({1000 * _PATTERN_SECONDS:g} ms at most): write smaller counted repetitions"
        )
