"""Malformed texts: faults of form, and letters of a foreign script."""

import re
import unicodedata
from functools import lru_cache

from corewrite.domain import Query
from corewrite.domain.shown import BLANK

# Joiners are spelling in Persian and the scripts of India, though they are format characters.
_JOINERS = frozenset("\u200c\u200d")
_SPECIAL_TOKEN = re.compile(
    r"<[|\uff5c][^<>]*[|\uff5c]>|</?s>|<(?:pad|unk|mask|bos|eos)>|\[/?(?:cls|sep|pad|unk|mask|bos|eos|inst)\]|<(?:start|end)_of_\w+>",
    re.IGNORECASE,
)
_CLOSES = {")": "(", "]": "[", "}": "{"}
_NOTATION = re.compile(r"[()\[\]{}\"]")
_KANA = frozenset({"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"})


@lru_cache(maxsize=1 << 17)
def faults(text: str) -> frozenset[str]:
    """What is wrong with the form of `text`.

    "control": a control or format character, a lone surrogate, a private or unassigned code point, a letter that is drawn as
    nothing.
    "replacement": U+FFFD, left where bytes could not be read. "special token": a model's own mark, such as
    <|end|> or [SEP]. "unbalanced": a bracket without its partner, an odd number of double quotes.
    """
    found = set()
    if not text.isprintable() and any(unicodedata.category(c)[0] == "C" and c not in _JOINERS for c in text):
        found.add("control")
    if not BLANK.isdisjoint(text):
        found.add("control")
    if "\ufffd" in text:
        found.add("replacement")
    if _SPECIAL_TOKEN.search(text):
        found.add("special token")
    if _NOTATION.search(text) and not _balanced(text):
        found.add("unbalanced")
    return frozenset(found)


def _balanced(text: str) -> bool:
    open_: list[str] = []
    for c in text:
        if c in "([{":
            open_.append(c)
        elif c in _CLOSES and (not open_ or open_.pop() != _CLOSES[c]):
            return False
    return not open_ and text.count('"') % 2 == 0


@lru_cache(maxsize=1 << 17)
def scripts(text: str) -> frozenset[str]:
    """Scripts of the letters of `text`: the first word of their Unicode names, such as LATIN, CYRILLIC or CJK.

    After compatibility normalisation, so that full-width and mathematical letters are those they stand for.
    Hiragana and katakana are both KANA. Modifier letters belong to no script.
    """
    if text.isascii():
        return frozenset({"LATIN"}) if any(c.isalpha() for c in text) else frozenset()
    found = map(_script, set(unicodedata.normalize("NFKC", text)))
    return frozenset(name for name in found if name)


@lru_cache(maxsize=1 << 14)
def _script(character: str) -> str:
    if unicodedata.category(character)[0] != "L":
        return ""
    first = unicodedata.name(character, "").split(" ")[0]
    return "KANA" if first in _KANA else "" if first == "MODIFIER" else first


def foreign_scripts(rewrite: str, query: Query) -> frozenset[str]:
    """Scripts of the rewrite that neither query nor context is written in.

    Where those have kana, CJK is no foreigner: Japanese is written in both. Where they have no letter at all,
    nothing is known of the script and none is foreign.
    """
    used = scripts(rewrite)
    own = scripts(query.text)
    if used <= own:
        return frozenset()
    known = own.union(*map(scripts, (*query.context.queries, *query.context.titles)))
    if "KANA" in known:
        known |= {"CJK"}
    return used - known if known else frozenset()
