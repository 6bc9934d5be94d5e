"""Texts sealed to a public key, whose private half only the cycle has: between plain texts and hashes.

Each text is a sealed box of libsodium (X25519, XSalsa20-Poly1305; an ephemeral key each) that holds the search's id and the
name of its field besides, so that no text can be moved to another search or another place in the line. Keys are files, named
by a fingerprint of the public half: a server is given one, a cycle a folder of private ones, so that keys can be changed and
old logs read until their key is thrown away.
"""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from corewrite.domain.extras import from_extra

if TYPE_CHECKING:
    from nacl.public import PrivateKey, PublicKey

_MARK: Final = "sealed:1"
PUBLIC, PRIVATE = ".public", ".private"
"""Endings of key files: 32 bytes in hexadecimal."""


class SealError(ValueError):
    """A key, or a sealed text, that cannot be used; the message says why and what to do."""


def make_keys(folder: Path) -> tuple[Path, Path]:
    """Make a pair of keys: the public file, for servers, and the private one, for the cycle alone.

    Raises:
        ImportError: PyNaCl is not installed.
        OSError: they cannot be written.
    """
    key = _nacl().PrivateKey.generate()
    name = _name(key.public_key)
    folder.mkdir(parents=True, exist_ok=True)
    public, private = folder / f"{name}{PUBLIC}", folder / f"{name}{PRIVATE}"
    # Only its owner may read it, from the first byte on.
    file = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(bytes(key).hex() + "\n")
    public.write_text(bytes(key.public_key).hex() + "\n", "utf-8")
    return public, private


class Sealer:
    """Seals texts to one public key.

    Args:
        file: Of the public key.

    Raises:
        ImportError: PyNaCl is not installed.
        SealError: the file is no public key.
    """

    def __init__(self, file: Path) -> None:
        nacl = _nacl()
        key: PublicKey = nacl.PublicKey(_read_key(file, PUBLIC))
        self._box, self._name = nacl.SealedBox(key), _name(key)

    def seal(self, query_id: str, field: str, text: str) -> str:
        """A text of a field of a search, sealed."""
        inside = json.dumps([query_id, field, text], ensure_ascii=False).encode("utf-8", "replace")
        return f"{_MARK}:{self._name}:{base64.b64encode(self._box.encrypt(inside)).decode()}"


@dataclass(frozen=True, eq=False)
class SealKeys:
    """Private keys, by name.

    Attributes:
        keys: The keys.
        folder: Where they lie, for messages.
    """

    keys: "Mapping[str, PrivateKey]"
    folder: Path

    def open(self, query_id: str, field: str, sealed: str) -> str:
        """The text.

        Raises:
            SealError: its key is not here, it was tampered with, or it belongs to another search or field.
        """
        mark, _, rest = sealed.rpartition(":")
        name = mark.removeprefix(f"{_MARK}:")
        if mark == name:
            raise SealError(f"{field} is not a sealed text of this version")
        if name not in self.keys:
            raise SealError(f"{field} is sealed to key {name!r:.40}, whose private half is not in {self.folder}")
        nacl = _nacl()
        try:
            inside = json.loads(nacl.SealedBox(self.keys[name]).decrypt(base64.b64decode(rest, validate=True)))
        except (ValueError, nacl.CryptoError) as error:
            raise SealError(f"{field} cannot be opened: it was changed since it was sealed") from error
        if not isinstance(inside, list) or len(inside) != 3 or inside[:2] != [query_id, field]:
            raise SealError(f"{field} was sealed for another search or field: somebody moved it here")
        return str(inside[2])

    def open_line(self, line: bytes) -> bytes:
        """A line of a log with its texts opened; one whose texts are not sealed as it is.

        Raises:
            SealError: a text cannot be opened.
        """
        if b'"sealed"' not in line:
            return line
        try:
            value = json.loads(line)
            attributes = value["query_attributes"]
            served = attributes["served"]
            query_id = value["query_id"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return line
        if not isinstance(served, dict) or served.get("texts") != "sealed":
            return line

        def opened(place: dict[str, Any], name: str, field: str) -> None:
            found = place.get(name)
            if isinstance(found, list):
                place[name] = [self.open(query_id, f"{field}.{i}", str(text)) for i, text in enumerate(found)]
            elif found is not None:
                place[name] = self.open(query_id, field, str(found))

        opened(value, "user_query", "user_query")
        opened(attributes, "context_titles", "context_titles")
        opened(served, "context_queries", "context_queries")
        opened(served, "rewrites", "rewrites")
        if isinstance(served.get("shadow"), dict):
            opened(served["shadow"], "rewrites", "shadow.rewrites")
        served["texts"] = "plain"
        return json.dumps(value, ensure_ascii=False).encode()


def load_keys(folder: Path) -> SealKeys:
    """The private keys of a folder.

    Raises:
        ImportError: PyNaCl is not installed.
        SealError: there is none, one is damaged, or others than its owner may read it.
    """
    nacl, found = _nacl(), {}
    for file in sorted(folder.glob(f"*{PRIVATE}")):
        if file.stat().st_mode & 0o077:
            raise SealError(f"{file} may be read by others than its owner: chmod 600 {file}")
        key = nacl.PrivateKey(_read_key(file, PRIVATE))
        found[_name(key.public_key)] = key
    if not found:
        raise SealError(f"{folder} holds no private key (*{PRIVATE}): `corewrite log keys` makes a pair")
    return SealKeys(found, folder)


Unseal = Callable[[bytes], bytes]
"""Opens the texts of a line: `SealKeys.open_line`."""


def _read_key(file: Path, ending: str) -> bytes:
    try:
        key = bytes.fromhex(file.read_text("utf-8").strip())
    except (OSError, ValueError) as error:
        raise SealError(f"{file} is no key (*{ending}): {error}") from error
    if len(key) != 32 or not file.name.endswith(ending):
        raise SealError(f"{file} is no key (*{ending}): `corewrite log keys` makes a pair")
    return key


def _name(key: "PublicKey") -> str:
    return hashlib.sha256(bytes(key)).hexdigest()[:16]


def _nacl() -> Any:
    with from_extra("seal", "texts are sealed by PyNaCl"):
        import nacl.public
        from nacl.exceptions import CryptoError
    nacl.public.CryptoError = CryptoError
    return nacl.public
