"""Fill the cache with the head queries of a log before a policy is promoted."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from corewrite.domain import Query
from corewrite.logs import build_query, find_outcomes, read_log, require_texts
from corewrite.rewriter import Rewriter
from corewrite.serving.cache import Texts, cache_key, canonical, sound
from corewrite.serving.worker import rewrites
from corewrite.storage.durable import naming

_log = logging.getLogger(__name__)
_CHUNK = 256


def head_queries(paths: Sequence[Path], top: int) -> list[Query]:
    """The most frequent queries of a log, with the contexts they came in, most frequent first.

    Raises:
        LogError: the log cannot be read, or its texts are hashes.
    """
    outcomes = find_outcomes(require_texts(read_log(list(paths))))
    count = Counter(build_query(outcomes, i) for i in range(len(outcomes)))
    return [query for query, _ in sorted(count.items(), key=lambda item: (-item[1], item[0].key))[:top]]


def warm(
    rewriter: Rewriter,
    policy: str,
    queries: Sequence[Query],
    *,
    max_new_tokens: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Texts]:
    """Rewrites of the queries by cache key.

    Args:
        rewriter: The policy.
        policy: Its content hash.
        queries: What to rewrite; those that share a prompt are rewritten once.
        max_new_tokens: Length limit of a rewrite, tokens.
        progress: Called with (prompts done, of how many).
    """
    template = rewriter.template.config
    asked = {cache_key(q, policy, template): q for q in (canonical(query, template) for query in queries)}
    keys, found = list(asked), {}
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        for key, texts in zip(chunk, rewrites(rewriter, [asked[k] for k in chunk], 1, max_new_tokens), strict=True):
            found[key] = tuple(texts)
        progress(min(start + _CHUNK, len(keys)), len(keys))
    return found


def write_warm(folder: Path, policy: str, found: dict[str, Texts]) -> Path:
    """Leave rewrites where the server finds them when it loads the policy."""
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / f"{policy}.ndjson", folder / f"{policy}.ndjson.part"
    with naming(path):
        part.write_text("".join(json.dumps({"key": k, "rewrites": t}) + "\n" for k, t in found.items()), "utf-8")
    part.replace(path)
    return path


def read_warm(folder: Path, policy: str) -> Iterator[tuple[str, Texts]]:
    """What `write_warm` left for a policy; lines that are not sound are passed over, a missing file is an empty one."""
    path = folder / f"{policy}.ndjson"
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        _log.error("%s cannot be read: %s; the cache starts cold", path, error)
        return
    for line in lines:
        try:
            value = json.loads(line)
            key, texts = value["key"], sound(value["rewrites"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(key, str) and texts is not None:
            yield key, texts
