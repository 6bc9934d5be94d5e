"""Rewrites computed once: in the memory of the process and, as an option, in a Redis shared by many.

The key holds all a rewrite depends on, the user's context among it, so that what one user did can never colour another's
rewrite. In the Redis names are keyed hashes, and every value holds a keyed hash of its own (HMAC, RFC 2104), both under a
secret that only the servers have: whoever can write to the Redis cannot tell which name is which query's, nor have a value of
his own served. Values are checked besides when they are read: no more than a short clean line gets into an answer.
"""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from typing import Any, Protocol

from cachetools import TTLCache

from corewrite.domain import Context, Query, sha256_json
from corewrite.domain.extras import from_extra
from corewrite.rewriter import TemplateConfig, clean
from corewrite.serving.settings import CacheSettings

MAX_REWRITES = 4
Texts = tuple[str, ...]
_PAUSE_SECONDS = 1.0
_MARK = 64
"""Length of the keyed hash before a value."""


class Cache(Protocol):
    """Rewrites by key; a failure of what is behind it is a miss, never an error."""

    async def get(self, key: str) -> Texts | None:
        """The rewrites of a key, best first (none: the policy had nothing to say); None where they are not known."""
        ...

    async def put(self, key: str, texts: Texts) -> None:
        """Keep the rewrites of a key."""
        ...


def canonical(query: Query, template: TemplateConfig) -> Query:
    """The query as the prompt will hold it: blanks and locale folded, only the part of the context that the template uses."""
    c = query.context
    queries, titles = (
        c.queries[len(c.queries) - min(len(c.queries), template.queries) :],
        c.titles[len(c.titles) - min(len(c.titles), template.titles) :],
    )
    # Of a template that leaves the locale out it stays as it is: keys that were made before are found again.
    locale = template.said_locale(c.locale) if template.format > 1 else c.locale
    return Query(_folded(query.text), Context(tuple(map(_folded, queries)), tuple(map(_folded, titles)), locale))


def cache_key(query: Query, policy: str, template: TemplateConfig, rewrites: int = 1) -> str:
    """Hash over all a rewrite depends on.

    Args:
        query: In the form of `canonical`.
        policy: Content hash of the policy's artifact.
        template: Its prompt template.
        rewrites: How many are asked for.
    """
    return sha256_json([query.key, policy, template.to_json(), rewrites])


def sound(value: Any) -> Texts | None:
    """Rewrites as they may be served: a list of a few short clean lines; None for anything else."""
    if not isinstance(value, list | tuple) or len(value) > MAX_REWRITES:
        return None
    for text in value:
        if not isinstance(text, str) or not text or len(text) > 1_000:
            return None
        cleaned = clean(text)
        if cleaned.malformed or cleaned.text != text:
            return None
    return tuple(value)


class MemoryCache:
    """The least recently used go first, and all after a time (a `Cache`).

    Attributes:
        hits: Found.
        misses: Not found.
    """

    def __init__(self, size: int, seconds: float) -> None:
        """Keep at most `size` keys, each for `seconds`."""
        # The clock is looked up at each call: a test moves it.
        self._known: TTLCache[str, Texts] = TTLCache(size, seconds, timer=lambda: time.monotonic())
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._known)

    def peek(self, key: str) -> Texts | None:
        """As `get`, at once."""
        found = self._known.get(key)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    def keep(self, key: str, texts: Texts) -> None:
        """As `put`, at once."""
        if self._known.maxsize:  # a size of 0 keeps nothing
            self._known[key] = texts

    async def get(self, key: str) -> Texts | None:
        """See `Cache.get`."""
        return self.peek(key)

    async def put(self, key: str, texts: Texts) -> None:
        """See `Cache.put`."""
        self.keep(key, texts)


class RedisCache:
    """A Redis as a `Cache`. After a failure it is not asked for a second: a dead one must not cost every search its time-out.

    Attributes:
        failures: Calls that failed or came too late, and values that were refused.
    """

    def __init__(self, url: str, seconds: float, timeout_ms: float, secret: str | None) -> None:
        """Use a Redis.

        Args:
            url: Where it listens.
            seconds: How long each value is kept.
            timeout_ms: Wall-clock limit of a call, milliseconds.
            secret: Authenticates names and values; None: whoever can write there is trusted.

        Raises:
            ImportError: the client is not installed.
            ValueError: the URL is none.
        """
        with from_extra("serve", "a Redis cache needs the client"):
            from redis.asyncio import Redis
        timeout = timeout_ms / 1000
        self._redis: Any = Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=None)
        self._seconds, self._timeout, self._paused_until = seconds, timeout, 0.0
        self._secret = None if secret is None else secret.encode("utf-8", "surrogateescape")
        self.failures = 0

    async def get(self, key: str) -> Texts | None:
        """See `Cache.get`."""
        raw = await self._ask("get", self._name(key))
        if raw is None:
            return None
        if not isinstance(raw, bytes):  # a URL may say that the client decodes (`?decode_responses=true`)
            self.failures += 1
            return None
        if self._secret is not None:
            mark, raw = raw[:_MARK], raw[_MARK:]
            if not hmac.compare_digest(mark, self._hash("value", key, raw)):
                self.failures += 1
                return None
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            value = None
        texts = sound(value.get("rewrites")) if isinstance(value, dict) and value.get("key") == key else None
        if texts is None:
            self.failures += 1
        return texts

    async def put(self, key: str, texts: Texts) -> None:
        """See `Cache.put`."""
        raw = json.dumps({"key": key, "rewrites": texts}).encode()
        if self._secret is not None:
            raw = self._hash("value", key, raw) + raw
        await self._ask("set", self._name(key), raw, px=int(self._seconds * 1000))

    async def put_many(self, found: Sequence[tuple[str, Texts]]) -> None:
        """Keep many."""
        for key, texts in found:
            await self.put(key, texts)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _ask(self, what: str, *arguments: Any, **options: Any) -> Any:
        if time.monotonic() < self._paused_until:
            return None
        try:
            # The client's time-outs are of one wait: a server that trickles is never late by them.
            async with asyncio.timeout(self._timeout):
                return await getattr(self._redis, what)(*arguments, **options)
        except Exception:
            # Whatever a client library raises over a broken server: the cache is there to help, never to fail a search.
            self.failures += 1
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            return None

    def _name(self, key: str) -> str:
        if self._secret is None:
            return f"corewrite:rewrite:{key}"
        return f"corewrite:rewrite:2:{self._hash('name', key, b'').decode()}"

    def _hash(self, purpose: str, key: str, raw: bytes) -> bytes:
        """Keyed hash in hexadecimal; a key is one, too, so no two messages run into each other."""
        assert self._secret is not None
        message = f"corewrite:2:{purpose}:{len(key)}:{key}:".encode() + raw
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest().encode()


def open_redis(settings: CacheSettings, timeout_ms: float) -> RedisCache | None:
    """The Redis of the settings; None where they name none.

    Args:
        settings: Of the cache.
        timeout_ms: Wall-clock limit of a call, milliseconds.

    Raises:
        ImportError: the client is not installed.
        ValueError: the URL is none, or the secret cannot be used.
    """
    if settings.redis_url is None:
        return None
    return RedisCache(settings.redis_url, settings.seconds, timeout_ms, settings.redis_secret())


def _folded(text: str) -> str:
    return " ".join(text.split())
