"""Searches from several threads until told to stop, every answer kept; and what must hold of them."""

import http.client
import json
import threading
import time
from dataclasses import dataclass

SPOKE = {"ok", "nothing"}
"""What `rewrite_status` says where the rewriter itself answered this very search."""


@dataclass(frozen=True)
class Answer:
    """One search: when it was sent and how long it took (seconds), HTTP status (0: none came), the body or what went wrong."""

    query: str
    began: float
    seconds: float
    status: int
    body: dict

    @property
    def neutral(self):
        return "ok" not in {v for k, v in self.body["signal_status"].items() if not k.endswith(".original")}


class Load:
    """`with Load(port, queries) as load:` searches all the while. Every search has a context of its own: none is cached."""

    def __init__(self, port, queries, threads=4, contexts=True, pause=0.005, timeout=10):
        self._port, self._queries, self._contexts, self._pause = port, queries, contexts, pause
        self._timeout = timeout
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(k,), daemon=True) for k in range(threads)]
        self.answers = []

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a search was never answered"

    def _run(self, k):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout)
        i = k
        while not self._end.is_set():
            query = self._queries[i % len(self._queries)]
            body = {"query": query, "client_id": f"c{i}"}
            if self._contexts:
                body["context"] = {"queries": [f"before {time.monotonic_ns()} {i}"]}
            self.answers.append(ask(connection, query, body))
            i += len(self._threads)
            time.sleep(self._pause)
        connection.close()

    def since(self, at, until=float("inf")):
        """Answers to searches that were sent after `at`, and that came before `until`."""
        return [a for a in list(self.answers) if at <= a.began and a.began + a.seconds < until]

    def until(self, condition, since, seconds, run=1):
        """Seconds from `since` to the end of the first of `run` answers in a row that meet `condition`.

        Answers are taken in the order in which they came; those in flight at `since` do not count.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = sorted((a for a in self.since(since)), key=lambda a: a.began + a.seconds)
            good = [a.status == 200 and condition(a) for a in found]
            for start in range(len(found) - run + 1):
                if all(good[start : start + run]):
                    return found[start].began + found[start].seconds - since
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s; the last answers: {self.answers[-3:]}")


def ask(connection, query, body):
    began = time.monotonic()
    try:
        connection.request("POST", "/v1/search", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        status, told = response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        status, told = 0, {"error": repr(error)}
    return Answer(query, began, time.monotonic() - began, status, told)


def ranking(answer):
    return [(r["id"], r["score"]) for r in answer.body["results"]]


def check(answers, plain, depth=10):
    """Every search was answered in full; one without any signal of the rewriter exactly as by a server that has none."""
    assert answers
    failed = [a for a in answers if a.status != 200]
    assert not failed, failed[:3]
    for a in answers:
        assert len(a.body["results"]) == depth == len({r["id"] for r in a.body["results"]}), a
        if a.neutral and not any(k.endswith(".original") for k in a.body["signal_status"]):
            assert ranking(a) == plain[a.query], a


def summary(answers):
    """Counts for the table of faults."""
    statuses = {}
    for a in answers:
        statuses[a.body["rewrite_status"]] = statuses.get(a.body["rewrite_status"], 0) + 1
    ordered = sorted(a.seconds for a in answers)
    return {
        "searches": len(answers), "failed": sum(a.status != 200 for a in answers),
        "neutral": sum(a.neutral for a in answers), "p50_ms": 1e3 * ordered[len(ordered) // 2], "slowest_ms": 1e3 * ordered[-1],
        "rewrite_status": statuses,
    }  # fmt: skip
