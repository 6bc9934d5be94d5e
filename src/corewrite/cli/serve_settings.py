"""Options and settings that `corewrite serve`, `warm` and `replay` share."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from corewrite.cli.common import open_registry

if TYPE_CHECKING:
    from corewrite.serving.settings import ServeConfig

RUN_OPTION = typer.Option(None, help="Run folder with the registry; default: the settings'.")
CONFIG_OPTION = typer.Option(None, "--config", "-c", help="Settings, YAML (docs/reference/corewrite-yaml.md).")


def read_serve_settings(run: Path | None, config: Path | None) -> "ServeConfig":
    """The settings of a file, of a run folder, or of a file with its registry and documents those of a run folder.

    Raises:
        ConfigError: the settings cannot be used.
        ValueError: neither is named.
    """
    from corewrite.serving.settings import load_serve_config

    if run is None and config is None:
        raise ValueError("say what to serve: --run, --config, or both")
    if run is not None:
        open_registry(run)  # says so where there is none
    return load_serve_config(config, run)
