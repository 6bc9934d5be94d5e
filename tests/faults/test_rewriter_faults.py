"""The rewriter dies, crawls, or talks rubbish while searches go on."""

import os
import signal
import time

import pytest


def spoke(kit):
    return lambda a: a.body["rewrite_status"] in kit.load.SPOKE


def test_a_rewriter_that_is_killed_again_and_again(server, queries, plain, kit, note):
    recoveries, silent = [], 0
    with kit.load.Load(server.port, queries) as load:
        load.until(spoke(kit), time.monotonic(), 10, run=5)
        for _ in range(3):
            killed, began = server.rewriters(), time.monotonic()
            assert killed
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            # Four are in flight at most: five in a row were rewritten by a process that is new.
            recoveries.append(load.until(spoke(kit), began, 15, run=5))
            assert not set(server.rewriters()) & set(killed)
            silent += sum(a.body["rewrite_status"] in {"failed", "starting"} for a in load.since(began - 1))
    kit.load.check(load.answers, plain)
    assert silent  # it was noticed, and said
    assert all(a.neutral for a in load.answers if a.body["rewrite_status"] in {"failed", "starting"})
    assert server.metric("corewrite_rewriter_restarts") >= 3
    note("rewriter killed, three times", load.answers, recovery_s=max(recoveries), recoveries_s=recoveries)


def test_a_rewriter_that_is_ten_times_slower(server, queries, plain, kit, note):
    with kit.load.Load(server.port, queries) as load:
        load.until(spoke(kit), time.monotonic(), 10, run=5)
        server.break_rewriter("slow")
        began = time.monotonic()
        load.until(lambda a: a.body["rewrite_status"] == "late", began, 10, run=5)
        time.sleep(3)
        mended = time.monotonic()
        server.break_rewriter("")
        recovery = load.until(spoke(kit), mended, 10, run=5)
    kit.load.check(load.answers, plain)
    slow = load.since(began + 0.5, mended)
    late = [a for a in slow if a.body["rewrite_status"] == "late"]
    assert len(late) > 0.9 * len(slow)
    for a in late:
        assert set(a.body["signal_status"].values()) == {"timeout"} and kit.load.ranking(a) == plain[a.query]
    note("rewriter ten times slower", slow, recovery_s=recovery)


@pytest.mark.parametrize(("fault", "said"), [("garbage", {"garbage"}), ("lies", {"failed", "starting"})])
def test_a_rewriter_that_talks_rubbish(server, queries, plain, kit, note, fault, said):
    """Garbage: control characters, lines of 10 kB, NaN, what is no text. Lies: what is no answer to the question at all."""
    with kit.load.Load(server.port, queries) as load:
        load.until(spoke(kit), time.monotonic(), 20, run=5)
        server.break_rewriter(fault)
        began = time.monotonic()
        load.until(lambda a: a.body["rewrite_status"] in said, began, 10, run=5)
        time.sleep(3)
        mended = time.monotonic()
        server.break_rewriter("")
        recovery = load.until(spoke(kit), mended, 15, run=5)
    kit.load.check(load.answers, plain)
    broken = load.since(began + 0.5, mended)
    assert {a.body["rewrite_status"] for a in broken} <= said | {"late", "overloaded", "stale"}
    for a in broken:
        assert a.body["rewrites"] == [] and a.neutral and kit.load.ranking(a) == plain[a.query]
    note(f"rewriter answers {fault}", broken, recovery_s=recovery)
