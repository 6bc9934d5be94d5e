"""Settings of the server; imports nothing heavy, for the process that only starts the workers."""

from corewrite.serving.settings.limits import Limits
from corewrite.serving.settings.log import LogSettings
from corewrite.serving.settings.rewriter import CacheSettings, Deadlines, RewriterSettings
from corewrite.serving.settings.secret import SECRET_CHARACTERS, secret_names
from corewrite.serving.settings.serve import (
    CONFIG_VARIABLE,
    MULTIPROCESS_VARIABLE,
    ServeConfig,
    ServeSections,
    ServeSettings,
    load_serve_config,
)

__all__ = [
    "CONFIG_VARIABLE",
    "MULTIPROCESS_VARIABLE",
    "SECRET_CHARACTERS",
    "CacheSettings",
    "Deadlines",
    "Limits",
    "LogSettings",
    "RewriterSettings",
    "ServeConfig",
    "ServeSections",
    "ServeSettings",
    "load_serve_config",
    "secret_names",
]
