"""Model folders: pinned by content, without code and pickles."""

import hashlib
import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from corewrite.domain import sha256_json
from corewrite.relevance.backends.errors import ScorerMismatchError
from corewrite.storage.model_files import UnsafeModelError, check_model_file
from corewrite.storage.model_size import check_model_size

_log = logging.getLogger(__name__)
_RULE = "v2:"
# Of pins of earlier versions, which name no rule.
_LEFT_OUT = frozenset({".md", ".lock"})


def folder_hash(folder: str | Path) -> str:
    """The pin of a folder: "v2:" and the content hash over every file below it with its name, hidden ones too.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no file.
        ScorerMismatchError: a folder below is a link, so that its files would not be covered.
    """
    return _RULE + _hash(Path(folder), _files(Path(folder)))


def uncovered(folder: str | Path, pin: str) -> list[Path]:
    """Files below `folder` that `pin` does not cover: none, but for pins of earlier versions."""
    return [] if pin.startswith(_RULE) else [f for f in _files(Path(folder)) if not _covered(f)]


def check_pin(folder: str | Path, pin: str) -> None:
    """Refuse a folder whose content is not the pinned one.

    A pin without "v2:" is of an earlier version and is checked under its rule, which leaves hidden files, `*.md` and `*.lock`
    out; where there are such files, the log names the pin that covers them.

    Raises:
        ScorerMismatchError: the hash of `folder` is not `pin`; or see `folder_hash`.
        FileNotFoundError: see `folder_hash`.
    """
    root, files = Path(folder), _files(Path(folder))
    earlier = not pin.startswith(_RULE)
    found = _hash(root, filter(_covered, files)) if earlier else folder_hash(root)
    if found != pin:
        raise ScorerMismatchError(
            f"{folder} has content {found}, pinned is {pin}: restore the files, or pin folder_hash({str(folder)!r}) once the "
            "new model is accepted"
        )
    if left_out := uncovered(root, pin):
        _log.warning(
            "%s: the pin %s is of an earlier version and does not cover %s (%d files); pin %s covers all",
            folder,
            pin,
            left_out[0],
            len(left_out),
            folder_hash(root),
        )


def check_safetensors(folder: str | Path) -> None:
    """Refuse a folder of `transformers` files that could run code or load weights from elsewhere, or that has no safetensors.

    Raises:
        ScorerMismatchError: it holds a file that `check_model_file` refuses, or no `*.safetensors`; or see `folder_hash`.
        FileNotFoundError: see `folder_hash`.
    """
    root = Path(folder)
    files = _files(root)
    for file in files:
        try:
            check_model_file(root / file)
        except UnsafeModelError as error:
            raise ScorerMismatchError(str(error)) from error
    if not any(file.suffix == ".safetensors" for file in files):
        raise ScorerMismatchError(f"{root} holds no *.safetensors file: is it a transformers model folder?")


def check_size(folder: str | Path) -> None:
    """Refuse a configuration that the library cannot build, or of a much larger model than the weights beside it are of.

    Raises:
        ScorerMismatchError: it is one.
    """
    from transformers import AutoModel

    try:
        check_model_size(Path(folder), partial(AutoModel.from_config, trust_remote_code=False))
    except UnsafeModelError as error:
        raise ScorerMismatchError(str(error)) from error
    except Exception as error:  # the library has no error of its own for what it cannot make of a configuration
        raise ScorerMismatchError(f"no model can be made of the configuration in {folder}: {error}") from error


def _files(root: Path) -> list[Path]:
    """Every file below `root`, relative to it, sorted."""
    found = sorted(root.rglob("*"))
    if link := next((p for p in found if p.is_symlink() and p.is_dir()), None):
        raise ScorerMismatchError(f"{link} is a link to a folder, whose files no pin covers: copy them instead")
    return [p.relative_to(root) for p in found if p.is_file()]


def _covered(file: Path) -> bool:
    """Whether a pin of an earlier version covers it."""
    return file.suffix.lower() not in _LEFT_OUT and not any(part.startswith(".") for part in file.parts)


def _hash(root: Path, files: Iterable[Path]) -> str:
    hashes = []
    for name in files:
        with (root / name).open("rb") as file:
            hashes.append([name.as_posix(), hashlib.file_digest(file, "sha256").hexdigest()])
    if not hashes:
        raise FileNotFoundError(f"{root} holds no model: give the folder that its files are in")
    return sha256_json(hashes)
