"""The Redis dies, the disk of the log is full."""

import json
import resource
import time

import pytest


def test_a_redis_that_is_killed(server, redis, queries, plain, kit, note):
    if redis is None:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    with kit.load.Load(server.port, queries) as load:
        load.until(lambda a: a.body["rewrite_status"] in kit.load.SPOKE, time.monotonic(), 15, run=5)
        failures = server.metric("corewrite_redis_failures")
        redis.kill()
        began = time.monotonic()
        time.sleep(3)
        ended = time.monotonic()
        assert server.metric("corewrite_redis_failures") > failures
        redis.start()
        back = time.monotonic()

        def used():
            return redis_size(redis) > 0

        kit.wait(used, 10, "a rewrite in the Redis")
        recovery = time.monotonic() - back
    kit.load.check(load.answers, plain)
    dead = load.since(began, ended)
    # Without it everything is a miss, and the rewriter goes on.
    assert sum(a.body["rewrite_status"] in kit.load.SPOKE for a in dead) > 0.8 * len(dead)
    note("Redis killed", dead, recovery_s=recovery)


def redis_size(redis):
    from redis import Redis

    with Redis(port=redis.port) as client:
        return client.dbsize()


@pytest.mark.parametrize("how", ["a full disk", "a limit on files"])
def test_a_disk_that_is_full(server, log_folder, queries, plain, kit, note, how):
    """A small disk of its own, where one can be mounted; and the limit on the size of a process's files."""
    filler, unlimited = log_folder.path / "filler", (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    if how == "a full disk" and not log_folder.mounted:
        pytest.skip("no disk can be mounted by this user")
    with kit.load.Load(server.port, queries) as load:
        written = server.metric("corewrite_log_lines_written")
        kit.wait(lambda: server.metric("corewrite_log_lines_written") > written, 10, "a line of the log")
        dropped = server.metric("corewrite_log_lines_dropped")
        began = time.monotonic()
        try:
            if how == "a full disk":
                with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                    while True:
                        file.write(b"\0" * 4096)
            else:
                resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            kit.wait(lambda: server.metric("corewrite_log_lines_dropped") > dropped + 20, 10, "dropped lines")
            time.sleep(1)
        finally:
            ended = time.monotonic()
            filler.unlink(missing_ok=True)
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, unlimited)
        written = server.metric("corewrite_log_lines_written")
        kit.wait(lambda: server.metric("corewrite_log_lines_written") > written, 10, "a line of the log after it")
        recovery = time.monotonic() - ended
    kit.load.check(load.answers, plain)
    broken = load.since(began, ended)
    assert sum(a.body["rewrite_status"] in kit.load.SPOKE for a in broken) > 0.8 * len(broken)
    lines = [line for file in log_folder.path.glob("*.ndjson") for line in file.read_bytes().splitlines()]
    torn = sum(not whole(line) for line in lines)
    assert len(lines) > 20 and torn <= 3  # a line that the full disk cut off spoils itself only
    note(f"log: {how}", broken, recovery_s=recovery, lines_dropped=server.metric("corewrite_log_lines_dropped") - dropped)


def whole(line):
    try:
        return json.loads(line)["application"] == "corewrite"
    except ValueError:
        return False
