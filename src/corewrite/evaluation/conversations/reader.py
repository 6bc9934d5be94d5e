"""Reading turns and passages: JSON objects, one a line, plain or gzipped."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from corewrite.evaluation.conversations.records import ConversationSet, Passage, Turn
from corewrite.logs.files import LINE_LIMIT
from corewrite.storage.line_files import bounded_lines

_TURN = "a turn has collection, conversation, turn, query, human_rewrite, earlier_queries, earlier_passages, passage"
_PASSAGE = "a passage has id and text"


class ConversationsError(ValueError):
    """Conversations that cannot be measured; the message names the file, the line, the value and the fix."""


def _id(value: str) -> str:
    if not value or re.search(r"\s", value):
        raise ValueError("an id is not empty and has no white space, which would end it in a TREC file")
    return value


def _said(value: str) -> str:
    if not value.strip():
        raise ValueError("it says nothing")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds a lone surrogate, which is no text") from None
    return value


Id = Annotated[str, AfterValidator(_id)]
Text = Annotated[str, AfterValidator(_said)]


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _TurnLine(_Line):
    collection: Id
    conversation: Id
    turn: Id | int
    query: Text
    human_rewrite: Text | None
    earlier_queries: list[Text]
    earlier_passages: list[Id]
    passage: Id | None


class _PassageLine(_Line):
    id: Id
    text: Text


L = TypeVar("L", bound=_Line)


def read_conversations(turns: Sequence[Path], passages: Sequence[Path], *, limit: int | None = None) -> ConversationSet:
    """Read turns and the pool of passages that they are measured over.

    Args:
        turns: Files of turns.
        passages: Files of passages; all of them are candidates of every turn.
        limit: How many of the turns that can be measured; None: all.

    Raises:
        ConversationsError: a line is refused, or no turn can be measured.
        OSError: a file cannot be read.
    """
    pool = _read_passages(passages)
    known = {p.id for p in pool}
    kept: list[Turn] = []
    passed_over, unknown = 0, set[str]()
    places: dict[str, str] = {}
    for place, line in _lines(turns, _TurnLine, _TURN):
        turn = Turn(
            line.collection,
            line.conversation,
            str(line.turn),
            line.query,
            line.human_rewrite,
            tuple(line.earlier_queries),
            tuple(line.earlier_passages),
            line.passage,
        )
        _refuse_repeated(places, turn.id, place, "turn")
        if turn.passage is not None and turn.passage not in known:
            files = ", ".join(map(str, passages))
            raise ConversationsError(
                f"{place}: passage {turn.passage!r:.80} is in no line of {files}: name its file with --passages"
            )
        if turn.passage in turn.earlier_passages:
            raise ConversationsError(
                f"{place}: passage {turn.passage!r:.80} is among earlier_passages: what was shown before is no candidate, take "
                "it out of one of the two"
            )
        if turn.passage is None or not turn.earlier_queries:
            passed_over += 1
            continue
        unknown |= {p for p in turn.earlier_passages if p not in known}
        kept.append(turn)
    if not kept:
        raise ConversationsError(
            f"{', '.join(map(str, turns))}: no turn can be measured ({passed_over} were read): one needs earlier_queries and a "
            "passage"
        )
    return ConversationSet(kept[:limit], pool, passed_over, len(unknown))


def _read_passages(files: Sequence[Path]) -> list[Passage]:
    found, places = list[Passage](), dict[str, str]()
    for place, line in _lines(files, _PassageLine, _PASSAGE):
        _refuse_repeated(places, line.id, place, "passage")
        found.append(Passage(line.id, line.text))
    return found


def _refuse_repeated(places: dict[str, str], name: str, place: str, what: str) -> None:
    if name in places:
        raise ConversationsError(f"{place}: {what} {name!r:.80} is there already, {places[name]}: take one of the two out")
    places[name] = place


def _lines(files: Sequence[Path], kind: type[L], wanted: str) -> Iterator[tuple[str, L]]:
    """Every line with its place, `FILE:LINE`."""
    for file in files:
        for number, raw in enumerate(_raw_lines(file), 1):
            if raw.strip():
                place = f"{file}:{number}"
                yield place, _parsed(raw, kind, place, wanted)


def _raw_lines(file: Path) -> Iterator[bytes]:
    try:
        for line in bounded_lines(file, LINE_LIMIT):
            if len(line) > LINE_LIMIT:
                raise ConversationsError(f"{file}: a line is over {LINE_LIMIT:,} bytes: one JSON object a line is read")
            yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConversationsError(f"{file}: cannot be unpacked ({error}): pack it again, or give it plain") from error


def _parsed(raw: bytes, kind: type[L], place: str, wanted: str) -> L:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        shown = raw[:60].decode("utf-8", "replace").strip()
        raise ConversationsError(f"{place}: {shown!r} is no JSON object ({error}): {wanted}") from error
    if not isinstance(value, dict):
        raise ConversationsError(f"{place}: {value!r:.60} is no JSON object: {wanted}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        why = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            raise ConversationsError(f"{place}: {name} is missing: {wanted}, null where there is none") from error
        raise ConversationsError(f"{place}: {name} {first['input']!r:.60}: {why}; {wanted}") from error
