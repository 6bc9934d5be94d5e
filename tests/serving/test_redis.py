"""A Redis as the shared cache: what goes in and out, and that nothing of it can fail a search."""

import asyncio
import json
import socket
import time

import pytest

from corewrite.domain import Query
from corewrite.serving.cache import MemoryCache, RedisCache
from corewrite.serving.rewriting import PolicyRewriter
from corewrite.serving.settings import CacheSettings, RewriterSettings

SECRET = "0123456789abcdef0123456789abcdef"


def over(kit, behave, shared):
    started = []

    async def start():
        started.append(kit.FakeProcess(behave))
        return started[-1]

    return PolicyRewriter("p", start, RewriterSettings(), MemoryCache(100, 60), shared), started


async def echo(queries, n):
    return [[q.text] for q in queries]


def test_one_worker_finds_what_another_put_there(kit, redis_server):
    async def check():
        caches = [RedisCache(redis_server.url, 60, 500, SECRET) for _ in range(2)]
        (one, _), (two, started) = over(kit, echo, caches[0]), over(kit, echo, caches[1])
        await one.open()
        await two.open()
        assert (await one.ask(Query("lion"))).reason == "ok"
        await asyncio.sleep(0.1)
        found = await two.ask(Query("lion"))
        assert (found.texts, found.reason) == (("lion",), "cached") and not started[0].batches
        await one.close()
        await two.close()
        for cache in caches:
            assert cache.failures == 0
            await cache.close()

    asyncio.run(check())


def test_values_expire_and_what_was_tampered_with_is_a_miss(redis_server):
    async def check():
        cache = RedisCache(redis_server.url, 0.2, 500, None)
        await cache.put("k", ("a", "b"))
        assert await cache.get("k") == ("a", "b")
        await asyncio.sleep(0.3)
        assert await cache.get("k") is None and cache.failures == 0
        lies = [b"\xff", b"[", b"[]", b"7", json.dumps({"key": "other", "rewrites": ["a"]}).encode(), b"[" * 100_000]
        lies += [json.dumps({"key": "k", "rewrites": r}).encode() for r in ("a", ["a\nb"], ["x" * 500], [1], ["a"] * 9, None)]
        for count, lie in enumerate(lies, 1):
            await cache._redis.set("corewrite:rewrite:k", lie)
            assert await cache.get("k") is None and cache.failures == count
        await cache.close()

    asyncio.run(check())


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_client_that_decodes_by_itself_is_a_miss(redis_server, secret):
    async def check():
        writes, reads = (RedisCache(redis_server.url + more, 60, 500, secret) for more in ("", "?decode_responses=true"))
        await writes.put("k", ("a",))
        assert await reads.get("k") is None and reads.failures == 1
        for cache in (writes, reads):
            await cache.close()

    asyncio.run(check())


def test_a_redis_that_dies_is_a_miss_and_is_used_again_when_it_is_back(kit, redis_server):
    async def check():
        cache = RedisCache(redis_server.url, 60, 200, SECRET)
        rewriter, _ = over(kit, echo, cache)
        await rewriter.open()
        assert (await rewriter.ask(Query("a"))).reason == "ok"
        redis_server.kill()
        began = time.monotonic()
        for i in range(20):
            assert (await rewriter.ask(Query(f"q{i}"))).reason == "ok"
        assert time.monotonic() - began < 1 and cache.failures >= 1
        redis_server.start()
        await asyncio.sleep(1.1)
        assert (await rewriter.ask(Query("back"))).reason == "ok"
        await asyncio.sleep(0.1)
        assert len(await cache._redis.keys("*")) == 1  # it came back empty
        await rewriter.close()
        await cache.close()

    asyncio.run(check())


def test_a_redis_that_is_not_there_or_never_answers_costs_one_time_out_a_second(kit):
    async def check(port, held):
        cache = RedisCache(f"redis://127.0.0.1:{port}", 60, 100, SECRET)
        rewriter, _ = over(kit, echo, cache)
        await rewriter.open()
        began = time.monotonic()
        for i in range(30):
            assert (await rewriter.ask(Query(f"q{i}"))).reason == "ok"
        assert time.monotonic() - began < 0.9, held
        assert 1 <= cache.failures <= 3
        await rewriter.close()
        await cache.close()

    asyncio.run(check(kit.free_port(), "nobody listens"))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        asyncio.run(check(silent.getsockname()[1], "somebody listens and says nothing"))


def test_without_the_secret_no_key_can_be_computed_and_no_value_is_served(kit, redis_server):
    """Whoever could write to the Redis had what he wrote shown to everybody, and kept in the workers' memory."""

    async def check():
        cache = RedisCache(redis_server.url, 60, 500, SECRET)
        await cache.put("k", ("a", "b"))
        await cache.put("other", ("c",))
        assert await cache.get("k") == ("a", "b") and cache.failures == 0
        name, other = sorted(await cache._redis.keys("*"), key=lambda n: n != cache._name("k").encode())
        assert b"k" not in name.split(b":")[-1] and len(name.split(b":")[-1]) == 64
        good, foreign = await cache._redis.get(name), await cache._redis.get(other)
        plain = json.dumps({"key": "k", "rewrites": ["planted"]}).encode()
        planted = [
            plain,
            b"",
            foreign,
            good.replace(b'"a"', b'"x"'),
            good[:64] + plain,
            b"0" * 64 + plain,
            good[:-1],
            good + b" ",
            b"\xff" * 99,
        ]
        for count, lie in enumerate(planted, 1):
            await cache._redis.set(name, lie)
            assert await cache.get("k") is None and cache.failures == count, lie
        await cache._redis.set(name, good)
        assert await cache.get("k") == ("a", "b")
        # Another secret finds nothing there: names are keyed too.
        stranger = RedisCache(redis_server.url, 60, 500, SECRET[::-1])
        assert await stranger.get("k") is None and stranger.failures == 0
        for c in (cache, stranger):
            await c.close()

    asyncio.run(check())


def test_a_planted_value_reaches_no_answer_and_no_memory(kit, redis_server):
    async def check():
        cache = RedisCache(redis_server.url, 60, 500, SECRET)
        rewriter, _ = over(kit, echo, cache)
        await rewriter.open()
        await rewriter.ask(Query("lion"))
        await asyncio.sleep(0.1)
        (name,) = await cache._redis.keys("*")
        await cache._redis.set(name, json.dumps({"key": name.decode().split(":")[-1], "rewrites": ["planted"]}))
        second, _ = over(kit, echo, cache)
        await second.open()
        for _ in range(2):
            assert (await second.ask(Query("lion"))).texts == ("lion",)
        for one in (rewriter, second):
            await one.close()
        await cache.close()

    asyncio.run(check())


def test_a_redis_that_trickles_costs_its_time_out(bad):
    def trickled(server, connection):
        connection.recv(65536)
        server.trickle(connection, b"$10000\r\n" + b"x" * 10_000, 0.02)

    async def check(port):
        cache = RedisCache(f"redis://127.0.0.1:{port}", 60, 100, SECRET)
        began = time.monotonic()
        assert await cache.get("k") is None
        assert time.monotonic() - began < 1 and cache.failures == 1
        await cache.close()

    with bad.hostile(trickled) as server:
        asyncio.run(check(server.port))


def test_a_redis_without_a_secret_is_refused_with_both_ways_out(monkeypatch):
    with pytest.raises(ValueError, match=r"`redis_secret_env`.*`insecure: true`"):
        CacheSettings(redis_url="redis://h")
    CacheSettings(redis_url="redis://h", insecure=True)
    CacheSettings()
    with pytest.raises(ValueError, match="exclude"):
        CacheSettings(redis_url="redis://h", redis_secret_env="S", insecure=True)
    settings = CacheSettings(redis_url="redis://h", redis_secret_env="S")
    monkeypatch.setenv("S", "short")
    with pytest.raises(ValueError, match=r"S holds .*16 characters"):
        settings.redis_secret()
    monkeypatch.setenv("S", SECRET)
    assert settings.redis_secret() == SECRET
