"""The base of all settings, and reading them."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Settings(BaseModel):
    """Settings that cannot change once read, and refuse names they do not know: a typo must not be a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


T = TypeVar("T", bound=Settings)


class ConfigError(ValueError):
    """Settings that are refused; the message names the file, the setting and what is wrong with it."""


def read_settings(path: Path, kind: type[T]) -> T:
    """Read settings of a kind from YAML; an empty file gives the defaults.

    Raises:
        ConfigError: the file cannot be read or a setting is refused.
    """
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    # The YAML reader lets through what Python says to odd numbers, escapes and tags.
    except (OSError, ValueError, ArithmeticError, AttributeError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot read the settings: {error}") from error
    try:
        return kind.model_validate({} if value is None else value)
    except ValidationError as error:
        problems = [f"{path}: {'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join(problems)) from error
