"""JSON objects of a run folder, which somebody may have changed since they were written."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError


class JsonObject(dict[str, Any]):
    """An object in a JSON file; a key that it lacks is an error of the file, with its name and the fix."""

    def __init__(
        self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), refuse: Callable[[str], Exception] = KeyError
    ) -> None:  # `dataclasses.asdict` makes another from pairs alone
        super().__init__(values)
        self._refuse = refuse

    def __missing__(self, key: str) -> Any:
        raise self._refuse(f"{key!r} is missing")

    def __reduce__(self) -> Any:  # copies and other processes get a plain one
        return dict, (dict(self),)


def read_object(file: Path, error: type[Exception], fix: str, shape: TypeAdapter[Any] | None = None) -> JsonObject:
    """The object that a JSON file holds; objects inside of it are `JsonObject`s too.

    Args:
        file: The file.
        error: What is raised where it holds none, lacks a key that is asked for, or does not have the shape.
        fix: What to do then.
        shape: Types of its values, nothing converted; None: any.

    Raises:
        Exception: `error`.
        OSError: the file cannot be read.
    """

    def refuse(what: str) -> Exception:
        return error(f"{file} is damaged ({what}): {fix}")

    try:
        found = json.loads(file.read_bytes(), object_hook=lambda values: JsonObject(values, refuse))
    except (ValueError, RecursionError) as unreadable:
        raise refuse(str(unreadable)) from unreadable
    if not isinstance(found, JsonObject):
        raise refuse("it is no JSON object")
    if shape is not None:
        try:
            shape.validate_python(found, strict=True)
        except ValidationError as wrong:
            first = wrong.errors(include_url=False, include_input=False)[0]
            said = [".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")]
            raise refuse(": ".join(filter(None, said))) from wrong
    return found
