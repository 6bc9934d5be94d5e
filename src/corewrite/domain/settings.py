"""The base of all settings."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings that cannot change once read, and refuse names they do not know: a typo must not be a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")
