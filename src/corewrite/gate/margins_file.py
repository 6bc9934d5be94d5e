"""The file of frozen margins: written once, read with its hash."""

from pathlib import Path

import yaml

from corewrite.domain import sha256_json
from corewrite.domain.strict_yaml import read_yaml
from corewrite.gate.calibrate import MarginCalibration
from corewrite.gate.config import Margins


def save_margins(calibration: MarginCalibration, path: Path) -> None:
    """Write margins for good, before the candidate is seen: a file that is there is not written over.

    Raises:
        FileExistsError: it is.
    """
    content = calibration.as_dict()
    with path.open("x", encoding="utf-8") as file:
        yaml.safe_dump({**content, "content_hash": sha256_json(content)}, file, sort_keys=False)


def load_margins(path: Path) -> Margins:
    """Read frozen margins; checks that were renamed since have their names of today.

    Raises:
        ValueError: the file cannot be read, is no margins file, or was changed after it was written.
    """
    content = read_yaml(path, "margins").value
    if not isinstance(content, dict) or "content_hash" not in content or "margins" not in content:
        raise ValueError(f"{path}: this is no margins file: `margins` and `content_hash` are not both in it")
    stated = content.pop("content_hash")
    try:
        found = sha256_json(content)
    except TypeError as error:
        raise ValueError(f"{path}: this is no margins file: {error}") from error
    if found != stated:
        raise ValueError(f"{path}: its content has hash {found}, not {stated}: frozen margins were changed, calibrate again")
    return Margins.model_validate(content["margins"])
