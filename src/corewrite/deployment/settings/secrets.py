"""Secrets: values of environment variables that settings name."""

import os
from collections.abc import Iterable

_kept: dict[str, str] = {}


def keep_secrets(names: Iterable[str]) -> None:
    """Take secrets out of the environment, which processes started from here would inherit; `load_secret` still has them."""
    for name in names:
        value = os.environ.pop(name, None)
        if value is not None:
            _kept[name] = value


def load_secret(name: str | None) -> str | None:
    """The value of an environment variable that a setting names; None where none is named.

    Raises:
        ValueError: it is not set, or empty, or blanks alone.
    """
    if name is None:
        return None
    value = os.environ.get(name, _kept.get(name))
    if value is None or not value.strip():
        raise ValueError(f"the environment variable {name}, which the settings name, is not set or empty")
    return value
