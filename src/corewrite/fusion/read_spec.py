"""Reading fusion specs, of every version."""

from importlib.resources import files
from pathlib import Path

from corewrite.domain import ConfigError
from corewrite.domain.settings import validated
from corewrite.domain.strict_yaml import YamlDocument, parse_yaml, read_yaml
from corewrite.fusion.spec import FusionSpec
from corewrite.fusion.spec_version_1 import FusionSpecV1


class SpecError(ValueError):
    """A fusion spec that is refused; the message names the file, the line, the value and the fix."""


def load_spec(path: Path) -> FusionSpec:
    """Read and validate a spec.

    Raises:
        SpecError: it cannot be read or is refused.
    """
    try:
        return _validated(read_yaml(path, "fusion spec"))
    except ConfigError as error:
        raise SpecError(str(error)) from error


def parse_spec(text: str, name: str = "<string>") -> FusionSpec:
    """Validate a spec given as YAML text.

    Raises:
        SpecError: it is refused; the message names `name`, the line, the value and the fix.
    """
    try:
        return _validated(parse_yaml(text, name, "fusion spec"))
    except ConfigError as error:
        raise SpecError(str(error)) from error


def default_spec() -> FusionSpec:
    """The packaged default spec."""
    return parse_spec((files("corewrite.fusion") / "default.yaml").read_text("utf-8"), "default.yaml")


def _validated(document: YamlDocument) -> FusionSpec:
    # A spec that names no version keeps the meaning, and the hash, that it had when there was only one.
    is_first = not isinstance(document.value, dict) or document.value.get("version", 1) == 1
    return validated(document, FusionSpecV1 if is_first else FusionSpec, "fusion spec")
