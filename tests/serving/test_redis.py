"""A Redis as the shared cache: what goes in and out, and that nothing of it can fail a search."""

import asyncio
import json
import socket
import time

from corewrite.domain import Query
from corewrite.serving.cache import MemoryCache, RedisCache
from corewrite.serving.rewriting import PolicyRewriter
from corewrite.serving.settings import RewriterSettings


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
        caches = [RedisCache(redis_server.url, 60, 500) for _ in range(2)]
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
        cache = RedisCache(redis_server.url, 0.2, 500)
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


def test_a_redis_that_dies_is_a_miss_and_is_used_again_when_it_is_back(kit, redis_server):
    async def check():
        cache = RedisCache(redis_server.url, 60, 200)
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
        assert await cache.get(next(k.decode().split(":")[-1] for k in await cache._redis.keys("*"))) == ("back",)
        await rewriter.close()
        await cache.close()

    asyncio.run(check())


def test_a_redis_that_is_not_there_or_never_answers_costs_one_time_out_a_second(kit):
    async def check(port, held):
        cache = RedisCache(f"redis://127.0.0.1:{port}", 60, 100)
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
