"""Placeholders `"${name}"` of an emitted body: what each request fills in."""

import re
from collections.abc import Mapping
from typing import Any

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z0-9_.]+)\}")


def placeholder(name: str) -> str:
    """The placeholder of a name."""
    return "${" + name + "}"


def placeholder_names(body: Any) -> tuple[str, ...]:
    """The names to be filled in, each once, sorted."""
    if isinstance(body, dict):
        return tuple(sorted({n for value in body.values() for n in placeholder_names(value)}))
    if isinstance(body, list):
        return tuple(sorted({n for value in body for n in placeholder_names(value)}))
    name = _name(body)
    return () if name is None else (name,)


def fill(body: Any, values: Mapping[str, Any]) -> Any:
    """A copy of an emitted body with its placeholders filled in.

    A placeholder is a whole string; one that is an element of a list is replaced by the elements of its value.

    Args:
        body: As `compile_spec` gives it.
        values: Value by name.

    Raises:
        KeyError: a placeholder has no value.
        ValueError: an element of a list is to be replaced by something that is no list.
    """
    if isinstance(body, dict):
        return {key: fill(value, values) for key, value in body.items()}
    if isinstance(body, list):
        filled: list[Any] = []
        for element in body:
            value = fill(element, values)
            if _name(element) is None:
                filled.append(value)
            elif isinstance(value, list):
                filled.extend(value)
            else:
                raise ValueError(f"{element} stands in a list: its value must be a list, this is a {type(value).__name__}")
        return filled
    name = _name(body)
    if name is None:
        return body
    if name not in values:
        raise KeyError(f"no value for the placeholder {body}: the body needs {name!r}")
    return values[name]


def _name(value: Any) -> str | None:
    match = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    return match[1] if match else None
