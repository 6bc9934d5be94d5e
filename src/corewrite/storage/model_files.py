"""Files of a model folder that would run code, be unpickled, or have a library read what lies outside of the folder.

A content hash covers the files of a folder, so it says what is loaded only as long as loading reads nothing else.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corewrite.domain import CODE, PICKLES

_COUNT = re.compile(r"(layer|block|depth|expert|label|stage|group|codebook)s?$|^n_layer|^num_.*(layer|block|expert|stage)")
"""Names of what a model is built of, one by one."""
_MOST_PARTS = 2_000
_LONGEST_HEADER = 10**8  # as the safetensors library
_INDEX, _CONFIG, _ADAPTER = ".index.json", "config.json", "adapter_config.json"


class UnsafeModelError(ValueError):
    """A file of a model folder that must not be loaded; the message names it and what to do."""


def check_model_file(path: Path) -> None:
    """Refuse a file that would run code, be unpickled, or name weights outside of its folder, before any library opens it.

    Args:
        path: The file. What it names is looked for beside it.

    Raises:
        UnsafeModelError: it is code or may be a pickle, by its name or by how it begins; an index of weights that names
            anything but `*.safetensors` files beside it; a configuration that asks for code, for a kernel of the hub, for
            files elsewhere, or for thousands of layers that have no weights; an adapter, whose base model lies elsewhere; or
            JSON of these that cannot be read.
    """
    name = path.name.lower()
    if path.suffix.lower() in PICKLES or _looks_pickled(path):
        raise UnsafeModelError(f"{path} may need unpickling, which can run code: convert it to safetensors and remove it")
    if path.suffix.lower() in CODE:
        raise UnsafeModelError(f"{path} is code: model folders hold data only, use a model class the library has")
    if name == _ADAPTER:
        raise UnsafeModelError(f"{path} is of an adapter, whose base model lies elsewhere: save it merged into its base")
    if name.endswith(_INDEX):
        _check_index(path)
    elif name.endswith(_CONFIG):
        _check_config(path)


def _check_index(path: Path) -> None:
    index = _read_json(path)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise UnsafeModelError(f"{path} is no index of weights: it has no mapping `weight_map`")
    for weight, file in shards.items():
        if not _is_beside(path, file, (".safetensors",)):
            raise UnsafeModelError(
                f"{path} maps {weight!r} to {file!r}: weights must be `*.safetensors` files of the same folder"
            )


def _check_config(path: Path) -> None:
    config = _read_json(path)
    if (key := _code_key(config)) is not None:
        raise UnsafeModelError(f"{path} asks for code of its own ({key!r}): remove the key and use what the library has")
    if not isinstance(config, dict):
        return
    check_parts(path, config, lambda: sum(map(_num_tensors, path.parent.glob("*.safetensors"))))
    weights = config.get("transformers_weights")
    if weights is not None and not _is_beside(path, weights, (".safetensors", ".safetensors.index.json")):
        raise UnsafeModelError(f"{path}: transformers_weights {weights!r} is no `*.safetensors` file of the same folder")
    tokenizers = config.get("fast_tokenizer_files") or []
    if not (isinstance(tokenizers, list) and all(_is_beside(path, file, (".json",)) for file in tokenizers)):
        raise UnsafeModelError(f"{path}: fast_tokenizer_files {tokenizers!r} are no files of the same folder")


def check_parts(path: Path, config: dict[str, Any], num_weights: Callable[[], int]) -> None:
    """Refuse more parts than any model has and than there are weights for: a library builds all before it looks for weights.

    Args:
        path: The file that asks for them.
        config: What it says.
        num_weights: Counts the weights that are there; called only where it matters.

    Raises:
        UnsafeModelError: it asks for so many.
    """
    left: list[Any] = [config]
    while left:
        value = left.pop()
        for key, inside in value.items():
            left += [v for v in (inside if isinstance(inside, list) else [inside]) if isinstance(v, dict)]
            if not _COUNT.search(key):
                continue
            asked = max((v for v in (inside if isinstance(inside, list) else [inside]) if isinstance(v, int)), default=0)
            if asked > _MOST_PARTS and asked > (weights := num_weights()):
                raise UnsafeModelError(
                    f"{path} asks for {str(asked)[:20]} ({key!r}) and there are {weights} weights: it would be built, part by "
                    "part, before anything is read; restore the configuration of these weights"
                )


def _num_tensors(path: Path) -> int:
    return len(_tensors(path))


def num_values(path: Path) -> int:
    """Numbers that a safetensors file holds by its header; 0 of one that cannot be read."""
    return sum(num_values_by_type(path).values())


def num_values_by_type(path: Path) -> Counter[str]:
    """Numbers that a safetensors file holds by its header, by the type they are stored in; none of one that cannot be read."""
    found: Counter[str] = Counter()
    for tensor in _tensors(path):
        found[str(tensor.get("dtype"))] += math.prod(tensor["shape"])
    return found


def _tensors(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            return []
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return []
    tensors = header.values() if isinstance(header, dict) else []
    shaped = [t for t in tensors if isinstance(t, dict) and isinstance(t.get("shape"), list)]
    return [t for t in shaped if all(isinstance(n, int) and n >= 0 for n in t["shape"])]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UnsafeModelError(f"{path} is not JSON: {error}: it must be readable to be checked") from error


def _is_beside(path: Path, name: object, ends: tuple[str, ...]) -> bool:
    """Whether `name` is the plain name of a file that lies beside `path` itself, hidden files and links aside."""
    if not isinstance(name, str) or not name.isprintable() or not name.endswith(ends):
        return False
    if name.startswith(".") or any(c in name for c in "/\\:"):
        return False
    there = path.with_name(name)
    try:
        # In the hub's cache index and weights are links alike; elsewhere a link alone leads out of what is looked at.
        return there.is_file() and (not there.is_symlink() or path.is_symlink())
    except OSError:  # a name that no file can have
        return False


def _looks_pickled(path: Path) -> bool:
    """Whether it starts as a pickle or as the zip of `torch.save` and `numpy.savez`, whatever its name says."""
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file starts with the length of its header, which may by chance read as a pickle's first
    # two bytes; but its header follows at the ninth.
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5") and start[8:9] != b"{"
    return pickled or start.startswith(b"PK\x03\x04")


def _code_key(config: Any) -> str | None:
    """The key of a model's configuration by which a library would load code, None where there is none."""
    left = [config]
    while left:  # no recursion: who wrote the file says how deep it is
        value = left.pop()
        if isinstance(value, dict):
            for key, inside in value.items():
                # "attn_implementation": "owner/name" is a kernel that is fetched from the hub and run.
                named = inside.values() if isinstance(inside, dict) else [inside]  # one for each part of the model
                kernel = key.endswith("_implementation") and any(isinstance(n, str) and "/" in n for n in named)
                if kernel or (key in ("auto_map", "custom_pipelines") and inside):
                    return str(key)
            left += value.values()
        elif isinstance(value, list):
            left += value
    return None
