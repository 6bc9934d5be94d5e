"""Objects read from JSON files: what is missing is an error of the file, and they go where dictionaries go."""

import copy
import json
import pickle
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from corewrite.storage.json_file import read_object


class DamagedError(ValueError):
    """Of these tests."""


@dataclass(frozen=True)
class Holder:
    records: tuple[dict[str, Any], ...]


def test_what_is_missing_is_an_error_of_the_file_and_copies_are_as_good(tmp_path):
    file, written = tmp_path / "record.json", {"phase": 1, "seconds": {"learn": 2.5}}
    file.write_text(json.dumps(written))
    found = read_object(file, DamagedError, "remove it")
    with pytest.raises(DamagedError, match=r"record\.json is damaged \('pairs' is missing\): remove it"):
        found["seconds"]["pairs"]
    # What the summary of a run does with its training's records.
    assert asdict(Holder((found,))) == {"records": (written,)}
    assert copy.deepcopy(found) == pickle.loads(pickle.dumps(found)) == json.loads(json.dumps(found)) == written
    with pytest.raises(KeyError):
        asdict(Holder((found,)))["records"][0]["pairs"]
