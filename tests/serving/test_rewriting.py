"""One policy's rewriter: single flight, batches, shedding, hung and dead processes, and who may share what."""

import asyncio
import time

import pytest

from corewrite.domain import Context, Query
from corewrite.rewriter import TemplateConfig
from corewrite.serving.cache import MemoryCache, cache_key, canonical, sound
from corewrite.serving.process import WorkerError
from corewrite.serving.rewriting import PolicyRewriter
from corewrite.serving.settings import RewriterSettings

LIMITS = TemplateConfig(titles=2, queries=1)


def rewriter_over(kit, behave, memory=None, **settings):
    started = []

    async def start():
        process = kit.FakeProcess(behave)
        started.append(process)
        return process

    made = PolicyRewriter("p" * 64, start, RewriterSettings(**settings), memory or MemoryCache(1000, 60))
    return made, started


async def echo(queries, n):
    return [[f"{q.text} {'/'.join((*q.context.queries, *q.context.titles))}".strip()] for q in queries]


def test_equal_queries_fly_once_and_unlike_ones_in_one_batch(kit):
    async def check():
        rewriter, (started) = rewriter_over(kit, echo, max_wait_ms=20)
        await rewriter.open()
        same = [rewriter.ask(Query("lion")) for _ in range(50)]
        others = [rewriter.ask(Query(f"q{i}")) for i in range(5)]
        found = [await f for f in (*same, *others)]
        assert {r.texts for r in found[:50]} == {("lion",)}
        assert [r.texts for r in found[50:]] == [(f"q{i}",) for i in range(5)]
        assert [sorted(q.text for q in b) for b in started[0].batches] == [sorted(["lion", *(f"q{i}" for i in range(5))])]
        assert (await rewriter.ask(Query("  lion "))).reason == "cached"  # blanks make no other prompt
        await rewriter.close()
        assert started[0].killed

    asyncio.run(check())


def test_a_context_is_in_the_key_and_only_as_far_as_the_prompt_holds_it():
    def key(query, policy="p", template=LIMITS, n=1):
        return cache_key(canonical(query, template), policy, template, n)

    base = Query("lion", Context(("zoo",), ("a", "b"), "en"))
    assert key(base) == key(Query(" lion", Context(("older", "zoo"), ("dropped", "a", "b "), "en")))
    others = [
        Query("lions", base.context),
        Query("lion", Context(("zoo2",), ("a", "b"), "en")),
        Query("lion", Context(("zoo",), ("b", "a"), "en")),
        Query("lion", Context((), ("zoo", "a"), "en")),
        Query("lion", Context(("zoo",), ("a", "b"), "de")),
        Query("lion"),
    ]
    keys = [key(q) for q in others]
    assert len({key(base), *keys, key(base, policy="q"), key(base, template=TemplateConfig()), key(base, n=2)}) == 10
    # Nothing but the last of the context is used: a template without one shares by query alone.
    none = TemplateConfig(titles=0, queries=0)
    assert canonical(base, none) == Query("lion", Context((), (), "en"))


def test_a_locale_is_in_the_key_as_the_prompt_holds_it():
    def asked(locale, **template):
        return canonical(Query("lion", Context(locale=locale)), TemplateConfig(**template))

    assert asked("en_US") == asked(" EN-us") == Query("lion", Context(locale="en-us"))
    assert asked("en_US", home_locale="en-us") == asked("") == Query("lion")
    # A template of format 1 leaves it out of the prompt; its keys stay those of before.
    assert asked("en_US", format=1) == Query("lion", Context(locale="en_US"))


def test_what_one_user_did_never_colours_the_rewrite_of_another(kit):
    async def check():
        rewriter, _ = rewriter_over(kit, echo)
        await rewriter.open()
        secret = Query("lion", Context(("my secret",)))
        asked = [rewriter.ask(secret), rewriter.ask(Query("lion")), rewriter.ask(Query("lion", Context(("other",))))]
        assert [(await f).texts for f in asked] == [("lion my secret",), ("lion",), ("lion other",)]
        assert (await rewriter.ask(Query("lion"))).texts == ("lion",)
        await rewriter.close()

    asyncio.run(check())


def test_a_full_queue_sheds_the_oldest_and_the_newest_is_decoded_first(kit):
    gate = asyncio.Event()

    async def gated(queries, n):
        await gate.wait()
        return await echo(queries, n)

    async def check():
        rewriter, started = rewriter_over(kit, gated, queue=8, max_batch=2, max_wait_ms=0)
        await rewriter.open()
        first = rewriter.ask(Query("first"))
        await kit.until(lambda: len(started[0].batches) == 1)
        waiting = [rewriter.ask(Query(f"q{i}")) for i in range(12)]
        assert rewriter.waiting == 8 and rewriter.shed == 4
        assert [f.result().reason for f in waiting[:4]] == ["overloaded"] * 4
        gate.set()
        assert (await first).reason == "ok"
        assert {(await f).reason for f in waiting[4:]} == {"ok"}
        assert [q.text for q in started[0].batches[1]] == ["q11", "q10"]
        await rewriter.close()

    asyncio.run(check())


async def occupied(kit):
    """A rewriter that takes 150 ms over each query, drops what waited for 100 ms, and is at the first one."""

    async def slow(queries, n):
        await asyncio.sleep(0.15)
        return await echo(queries, n)

    rewriter, started = rewriter_over(kit, slow, max_batch=1, max_wait_ms=0, stale_ms=100)
    await rewriter.open()
    first = rewriter.ask(Query("first"))
    await kit.until(lambda: len(started[0].batches) == 1)
    return rewriter, first


def test_what_waited_too_long_is_dropped(kit):
    async def check():
        rewriter, first = await occupied(kit)
        second = rewriter.ask(Query("second"))
        assert (await first).reason == "ok" and (await second).reason == "stale"
        await rewriter.close()

    asyncio.run(check())


def test_what_somebody_still_waits_for_is_not(kit):
    async def check():
        rewriter, first = await occupied(kit)
        patient, joined, hasty = rewriter.ask(Query("a"), 1, 2_000), rewriter.ask(Query("b")), rewriter.ask(Query("c"))
        assert rewriter.ask(Query("b"), 1, 2_000) is joined
        assert [(await f).reason for f in (first, patient, joined, hasty)] == ["ok", "ok", "ok", "stale"]
        await rewriter.close()

    asyncio.run(check())


def test_a_dead_process_is_replaced_and_what_it_held_is_answered(kit):
    dying = {"on": True}

    async def behave(queries, n):
        if dying["on"]:
            raise WorkerError("killed")
        return await echo(queries, n)

    async def check():
        rewriter, started = rewriter_over(kit, behave)
        await rewriter.open()
        assert (await rewriter.ask(Query("lion"))).reason == "failed"
        await asyncio.sleep(0.01)
        assert not rewriter.healthy and (await rewriter.ask(Query("lion"))).reason == "starting"
        dying["on"] = False
        await kit.until(lambda: rewriter.healthy)
        assert (await rewriter.ask(Query("lion"))).texts == ("lion",)
        assert rewriter.restarts == 1 and len(started) == 2 and started[0].killed
        await rewriter.close()

    asyncio.run(check())


def test_a_hung_process_is_killed_with_or_without_traffic(kit):
    async def hangs(queries, n):
        await asyncio.Event().wait()

    async def check():
        rewriter, started = rewriter_over(kit, hangs, hang_seconds=0.2)
        await rewriter.open()
        assert rewriter.healthy
        began = time.monotonic()
        assert (await rewriter.ask(Query("lion"))).reason == "failed"
        assert 0.15 < time.monotonic() - began < 1 and started[0].killed
        await rewriter.close()

        idle, started = rewriter_over(kit, echo, hang_seconds=0.2, probe_seconds=0.1)
        await idle.open()
        await asyncio.sleep(0.5)
        assert idle.healthy and idle.restarts == 0 and idle.batches >= 3  # idle is no fault: probes succeed
        started[0].ask = hangs
        await kit.until(lambda: started[0].killed, 2)
        await kit.until(lambda: idle.healthy, 2)
        await idle.close()

    asyncio.run(check())


def test_health_needs_a_success_that_is_not_long_ago(kit, monkeypatch):
    async def check():
        rewriter, _ = rewriter_over(kit, echo)
        await rewriter.open()
        now = time.monotonic()
        monkeypatch.setattr("corewrite.serving.rewriting.time.monotonic", lambda: now + 24)
        assert rewriter.healthy
        monkeypatch.setattr("corewrite.serving.rewriting.time.monotonic", lambda: now + 26)
        assert not rewriter.healthy
        monkeypatch.undo()
        await rewriter.close()

    asyncio.run(check())


def test_a_policy_that_does_not_start_says_so_at_once(kit):
    async def start():
        raise WorkerError("no weights")

    async def check():
        rewriter = PolicyRewriter("p", start, RewriterSettings(), MemoryCache(10, 10))
        with pytest.raises(WorkerError, match="no weights"):
            await rewriter.open()

    asyncio.run(check())


def test_blocked_words_are_whole_words_and_a_user_may_type_them_himself(kit):
    async def check():
        rewriter, _ = rewriter_over(kit, lambda q, n: bad(q), blocklist=["Bad Word"])

        async def bad(queries):
            return [[f"{q.text} bad"] if q.text != "x" else ["badly"] for q in queries]

        await rewriter.open()
        assert (await rewriter.ask(Query("lion"))).reason == "blocked"
        assert (await rewriter.ask(Query("bad lion"))).texts == ("bad lion bad",)
        assert (await rewriter.ask(Query("x"))).texts == ("badly",)
        assert (await rewriter.ask(Query("lion"))).reason == "blocked"  # the cache is no way around it
        await rewriter.close()

    asyncio.run(check())


def test_the_memory_forgets_the_least_used_and_the_old(monkeypatch):
    cache = MemoryCache(2, seconds=10)
    for key in "ab":
        cache.keep(key, (key,))
    assert cache.peek("a") == ("a",)
    cache.keep("c", ())
    assert cache.peek("b") is None and cache.peek("a") == ("a",) and cache.peek("c") == ()
    now = time.monotonic()
    monkeypatch.setattr("corewrite.serving.cache.time.monotonic", lambda: now + 11)
    assert cache.peek("a") is None and cache.peek("c") is None and len(cache) == 0


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        [""],
        ["a", 1],
        [["a"]],
        {"a": 1},
        ["a\nb"],
        ["a\x00"],
        [" a"],
        ["a  b"],
        ["x" * 121],
        ["a"] * 5,
        ["\u202ea"],
    ],
)
def test_values_that_are_no_clean_lines_are_refused(value):
    assert sound(value) is None
    assert sound(["a", "b c"]) == ("a", "b c") and sound([]) == ()


def test_a_process_that_cannot_be_started_for_want_of_files_is_started_later(kit):
    """An error of the system, not of the process: the restarts must survive it too."""

    async def check():
        started, dying = [], {"on": True}

        async def behave(queries, n):
            if dying["on"]:
                raise WorkerError("killed")
            return await echo(queries, n)

        async def start():
            started.append(kit.FakeProcess(behave))
            if len(started) == 2:
                raise OSError(24, "Too many open files")
            return started[-1]

        rewriter = PolicyRewriter("p" * 64, start, RewriterSettings(), MemoryCache(10, 60))
        await rewriter.open()
        assert (await rewriter.ask(Query("lion"))).reason == "failed"
        dying["on"] = False
        await kit.until(lambda: rewriter.healthy)
        assert (await rewriter.ask(Query("lion"))).texts == ("lion",) and len(started) == 3
        await rewriter.close()

    asyncio.run(check())


def test_probes_come_before_an_idle_process_is_taken_for_hung():
    assert RewriterSettings(probe_seconds=20).probe_seconds == 20
    with pytest.raises(ValueError, match="probe_seconds"):
        RewriterSettings(probe_seconds=30)
