"""Content hashes: the same value has the same hash on every machine and in every process."""

import hashlib
import json
from collections.abc import Iterable


def sha256_text(text: str) -> str:
    """Hex SHA-256 of `text` in UTF-8; lone surrogates are kept apart rather than refused."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_chunks(chunks: Iterable[bytes | memoryview]) -> str:
    """Hex SHA-256 over the concatenation of `chunks`."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: object) -> str:
    """Hex SHA-256 of the canonical JSON of `value` (sorted keys, no spaces).

    Raises:
        TypeError: `value` holds something JSON cannot express.
    """
    return sha256_text(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def hash_share(key: str, salt: str) -> float:
    """Map `key` to a number in [0, 1), uniform over keys and independent between salts.

    Used to put users into arms, gates and holdbacks: the same key and salt always fall alike.
    """
    return int(sha256_text(f"{salt}\x1f{key}")[:13], 16) / 16**13
