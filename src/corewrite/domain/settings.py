"""The base of all settings, and reading them."""

import types
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from corewrite.domain.shown import spelled
from corewrite.domain.strict_yaml import ConfigError, Location, YamlDocument, read_yaml, shown_key


class Settings(BaseModel):
    """Settings that cannot change once read, and refuse names they do not know: a typo must not be a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    FORMER_DEFAULTS: ClassVar[Mapping[str, Any]] = {}
    """The defaults that earlier versions had and wrote down, by name."""

    def with_former_defaults(self) -> Self:
        """What an earlier version would have made of the same file."""
        found = {
            name: value.with_former_defaults() if isinstance(value, Settings) else self.FORMER_DEFAULTS[name]
            for name, value in self
            if isinstance(value, Settings) or (name in self.FORMER_DEFAULTS and value == type(self).model_fields[name].default)
        }
        return self.model_copy(update=found)


class PluginSettings(Settings):
    """Settings of a kind that an installed package brings: options of its own beside those that are named here."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The settings that are the plugin's own."""
        return dict(self.__pydantic_extra__ or {})


T = TypeVar("T", bound=Settings)


def read_settings(path: Path, kind: type[T]) -> T:
    """Read settings of a kind from YAML; an empty file gives the defaults.

    Raises:
        ConfigError: the file cannot be read or settings are refused; a line for each.
    """
    return validated(read_yaml(path), kind)


def validated(document: YamlDocument, kind: type[T], what: str = "settings", sections: Mapping[str, str] | None = None) -> T:
    """Settings of a kind out of a document; an empty one gives the defaults.

    Args:
        document: What was read.
        kind: Of the settings.
        what: They are, for messages.
        sections: All names that may stand at the top and what they are about, where `kind` has some of them only; the rest is
            passed over.

    Raises:
        ConfigError: settings are refused; a line for each, with file, line, setting, value and what to write instead.
    """
    value = {} if document.value is None else document.value
    if not isinstance(value, dict):
        raise ConfigError(
            f"{document.name}:1: {what}: must be a mapping (`name: value`, a line each), this is a {type(value).__name__}"
        )
    about = sections or {}
    value = {name: v for name, v in value.items() if name in kind.model_fields or name not in about}
    booleans = dict(_booleans_for_numbers(value, kind))
    problems = [(at, _said(document, at, _NO_NUMBER, v, what)) for at, v in booleans.items()]
    try:
        found = kind.model_validate(value)
    except ValidationError as error:
        problems += [(e["loc"], _problem(document, kind, what, about, e)) for e in error.errors() if e["loc"] not in booleans]
    if problems:
        raise ConfigError("\n".join(said for _, said in sorted(problems, key=lambda p: document.line(p[0]))))
    return found


def same_settings(stored: object, settings: Settings) -> bool:
    """Whether a stored `model_dump(mode="json")`, names and defaults of earlier versions included, is of these settings."""
    try:
        return type(settings).model_validate(stored) in (settings, settings.with_former_defaults())
    except ValidationError:
        return False


_NO_NUMBER = "must be a number (YAML reads yes, no, on and off as true and false)"


def unknown_name(name: str, known: Iterable[str]) -> str:
    """What to say of a name that nothing has: the one that was probably meant, or all there are."""
    names = sorted(known)
    if near := get_close_matches(name[:80], names, 1):
        return f"unknown name; did you mean {near[0]!r}?"
    return f"unknown name; there are {', '.join(names)}" if names else "unknown name"


def _problem(document: YamlDocument, kind: type[Settings], what: str, sections: Mapping[str, str], error: ErrorDetails) -> str:
    location, value = error["loc"], error["input"]
    if error["type"] == "extra_forbidden":
        known = {f.alias or name for k in _settings_at(kind, location[:-1]) for name, f in k.model_fields.items()}
        said = unknown_name(str(location[-1]), sections if sections and len(location) == 1 else known)
        value = {}  # not shown: it may be a secret put where none belongs
    elif error["type"] == "missing" and location[0] in sections and len(location) == 1:
        said = f"is needed: {sections[str(location[0])]}"
    elif error["type"] == "union_tag_not_found":
        said = f"needs `kind`, one of {', '.join(name for k in _settings_at(kind, location) for name in _kind_names(k))}"
    elif error["type"] == "string_type" and isinstance(value, bool | int | float):
        said = f"{error['msg']}: put it in quotes"
    else:
        said = spelled(error["msg"].removeprefix("Value error, "))
    return _said(document, location, said, value, what, missing=error["type"] == "missing")


def _said(document: YamlDocument, location: Location, said: str, value: object, what: str, *, missing: bool = False) -> str:
    shown = "" if isinstance(value, dict | list | BaseModel) else f" (got {value!r:.80})"
    where = ".".join(shown_key(str(part)) for part in document.path(location, missing=missing)) or what
    return f"{document.name}:{document.line(location)}: {where}: {said}{shown}"


def _booleans_for_numbers(value: object, kind: type[Settings], location: Location = ()) -> Iterator[tuple[Location, object]]:
    """Where a number is wanted and `yes` would silently be 1."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _booleans_for_numbers(inner, kind, (*location, key))
    elif isinstance(value, bool):
        wanted = _types_at(kind, location)
        if bool not in wanted and (int in wanted or float in wanted):
            yield location, value


def _settings_at(kind: type[Settings], location: Location) -> list[type[Settings]]:
    """The settings classes that a place may hold."""
    return [t for t in _types_at(kind, location) if isinstance(t, type) and issubclass(t, Settings)]


def _types_at(kind: type[Settings], location: Location) -> list[Any]:
    """The types that a place may hold."""
    found: list[Any] = [kind]
    for key in location:
        # Where settings come in several kinds, pydantic names the kind as if it were a place.
        found = [t for outer in found for t in _types_in(outer, key)] or [t for t in found if key in _kind_names(t)]
    return found


def _types_in(outer: Any, key: int | str) -> Iterator[Any]:
    args = get_args(outer)
    if isinstance(outer, type) and issubclass(outer, Settings):
        for name, field in outer.model_fields.items():
            if key == (field.alias or name):
                yield from iterate_parts(field.annotation)
    elif get_origin(outer) is dict:
        yield from iterate_parts(args[1])
    elif get_origin(outer) in (list, tuple) and isinstance(key, int):
        yield from iterate_parts(args[0] if args[-1] is Ellipsis or key >= len(args) else args[key])


def _kind_names(settings: Any) -> tuple[str, ...]:
    """What `kind` may be in settings that come in several."""
    field = settings.model_fields.get("kind") if isinstance(settings, type) and issubclass(settings, Settings) else None
    return get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()


def iterate_parts(annotation: Any) -> Iterator[Any]:
    """The types that a type such as `Annotated[int, ...] | None` allows."""
    if get_origin(annotation) is Annotated:
        yield from iterate_parts(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for inner in get_args(annotation):
            yield from iterate_parts(inner)
    else:
        yield annotation
