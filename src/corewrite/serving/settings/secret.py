"""Secrets that a server's settings name, and the refusal of settings that need one and have none."""

from pydantic import BaseModel

SECRET_CHARACTERS = 16
"""A secret has at least as many, or it may be found by trying."""


def check_secret(
    whose: str, setting: str, variable: str | None, *, needed: bool, insecure: bool, risk: str, otherwise: str
) -> None:
    """Refuse what needs a secret and has none, unless it is said that none is wanted; and both at once.

    Raises:
        ValueError: it is so.
    """
    if needed and variable is None and not insecure:
        raise ValueError(
            f"{whose} has no secret, so that {risk}: name an environment variable with one in `{setting}` (openssl rand -hex "
            f"32 makes one), or say `insecure: true` where {otherwise}"
        )
    if variable is not None and insecure:
        raise ValueError(f"{setting} and insecure exclude each other: {whose} has a secret, or it has none")


def secret_names(settings: BaseModel) -> set[str]:
    """Environment variables in which settings, and those within them, say that a secret stands (`..._env`)."""
    found: set[str] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name.endswith("_env") and isinstance(value, str):
            found.add(value)
        for inner in value.values() if isinstance(value, dict) else (value,):
            if isinstance(inner, BaseModel):
                found |= secret_names(inner)
    return found
