"""Model folders: pinned by content, without code and pickles."""

import hashlib
from pathlib import Path

from corewrite.domain import CODE, PICKLES, sha256_json
from corewrite.relevance.backends.errors import ScorerMismatchError

_SAY_NOTHING = frozenset({".md", ".lock"})


def folder_hash(folder: str | Path) -> str:
    """Content hash over every file below `folder` with its name; hidden ones, `.md` and `.lock` are left out.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no file.
    """
    root = Path(folder)
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    files = [f for f in files if f.suffix.lower() not in _SAY_NOTHING and not any(part.startswith(".") for part in f.parts)]
    if not files:
        raise FileNotFoundError(f"{root} holds no model: give the folder that its files are in")
    hashes = []
    for name in files:
        with (root / name).open("rb") as file:
            hashes.append([name.as_posix(), hashlib.file_digest(file, "sha256").hexdigest()])
    return sha256_json(hashes)


def check_pin(folder: str | Path, pin: str) -> None:
    """Refuse a folder whose content is not the pinned one.

    Raises:
        ScorerMismatchError: the hash of `folder` is not `pin`.
        FileNotFoundError: see `folder_hash`.
    """
    found = folder_hash(folder)
    if found != pin:
        raise ScorerMismatchError(
            f"{folder} has content {found}, pinned is {pin}: restore the files, or pin folder_hash({str(folder)!r}) once the "
            "new model is accepted"
        )


def check_safetensors(folder: str | Path) -> None:
    """Refuse a folder of `transformers` files that could run code, or that has no safetensors.

    Raises:
        ScorerMismatchError: it holds a pickle or code, or no `*.safetensors`.
    """
    root = Path(folder)
    unsafe = sorted(str(f.relative_to(root)) for f in root.rglob("*") if f.suffix.lower() in PICKLES | CODE)
    if unsafe:
        raise ScorerMismatchError(f"{root} holds {unsafe[0]}: only safetensors are read; convert the weights and remove it")
    if not any(root.rglob("*.safetensors")):
        raise ScorerMismatchError(f"{root} holds no *.safetensors file: is it a transformers model folder?")
