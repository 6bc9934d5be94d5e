"""What was served, written down: readable as UBI, without texts unless asked for, replayed, and used to warm a cache."""

import asyncio
import errno
import gzip
import json
import os
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.replay import ReplayError, replay_log
from corewrite.deployment.settings import RankerSettings
from corewrite.domain.traffic_split import current_arm
from corewrite.fusion import default_spec
from corewrite.logs import LogError, read_log
from corewrite.logs.sealing import load_keys, make_keys
from corewrite.rewriter import load_rewriter
from corewrite.search.documents import read_catalogue
from corewrite.serving.process import WorkerError
from corewrite.serving.service import Service
from corewrite.serving.settings import LogSettings
from corewrite.serving.ubi_log import UbiLog
from corewrite.serving.warm import head_queries, read_warm, warm, write_warm


def bundled(catalogue):
    """Opens what the bundled model and the embedded indexes ranked."""
    return RankerOpener(RankerSettings(), catalogue)


ARMS = {"none": 0.3, "finerank_only": 0.3, "all_stages": 0.4}
CONTEXT = {"queries": ["an earlier query"], "titles": ["a title seen"], "locale": "en"}


@dataclass(frozen=True)
class Numbered:
    """A line of a kilobyte."""

    n: int

    def encoded(self):
        return json.dumps({"n": self.n, "x": "y" * 1000}).encode() + b"\n"


def serve_some(made, kit, folder, *, n=24, query_text=True, share=1.0, **changes):
    log = {"folder": folder, "query_text": query_text, "counterfactual_share": share}
    config = made.config(log=log, arms=ARMS, **changes)

    async def go():
        answers = []
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            for i in range(n):
                query = made.queries(8)[i % 8]
                answers.append(await client.search(query, client_id=f"c{i}", session_id=f"s{i}", context=CONTEXT, explain=True))
        return answers

    answers = asyncio.run(go())
    lines = [json.loads(line) for path in sorted(folder.iterdir()) for line in path.read_text("utf-8").splitlines()]
    return answers, lines


def test_every_search_is_a_ubi_line_with_arm_versions_and_factors(made, kit, tmp_path):
    answers, lines = serve_some(made, kit, tmp_path / "log")
    log = read_log(sorted((tmp_path / "log").iterdir()))
    assert log.report.queries == len(answers) == 24 and log.report.rejected == 0
    rows = log.searches.execute().set_index("query_id")
    by_id = {line["query_id"]: line for line in lines}
    for answer in answers:
        row, line = rows.loc[answer["query_id"]], by_id[answer["query_id"]]
        served = line["query_attributes"]["served"]
        assert list(row["hit_ids"]) == [r["id"] for r in answer["results"]]
        assert (
            row["arm"] == current_arm(answer["arm"])
            and row["locale"] == "en"
            and list(row["context_titles"]) == ["a title seen"]
        )
        assert (served["version"], served["policy"]) == (1, made.first.policy)
        assert served["spec_hash"] == default_spec().spec_hash and served["spec"] == made.first.spec
        assert served["rewrites"] == answer["rewrites"] and served["signal_status"] == answer["signal_status"]
        for name, values in served["factors"].items():
            assert values == [r["factors"][name] for r in answer["results"]]
        assert len(row["user_id"]) == len(row["session_id"]) == 32  # hashes
    assert {a["arm"] for a in answers} == {"none", "launch_1", "launch_2"}
    assert [line["query_attributes"]["served"]["log"]["sequence"] for line in lines] == list(range(24))
    assert len({line["query_attributes"]["served"]["log"]["writer"] for line in lines}) == 1


def test_texts_and_names_are_hashes_unless_asked_for(made, kit, tmp_path, monkeypatch):
    monkeypatch.setenv("SALT", "pepper")
    answers, lines = serve_some(made, kit, tmp_path / "plain", n=3, query_text=False)
    written = "".join(p.read_text() for p in (tmp_path / "plain").iterdir())
    private = [
        *made.queries(8),
        "an earlier query",
        "a title seen",
        '"c1"',
        '"s1"',
        *(t for a in answers for t in a["rewrites"]),
    ]
    assert not [text for text in private if text in written]
    assert len({line["user_query"] for line in lines}) == 3
    with pytest.raises(ReplayError, match=r"query_text"):
        replay_log(tmp_path / "plain", made.registry, bundled(made.catalogue))
    with pytest.raises(LogError, match=r"query_text"):
        head_queries(sorted((tmp_path / "plain").iterdir()), 10)


def test_replay_recomputes_every_factor_also_of_rewrites_that_came_late(made, kit, tmp_path):
    log = tmp_path / "log"
    _, lines = serve_some(made, kit, log)
    found = replay_log(log, made.registry, bundled(read_catalogue(made.folder / "documents.parquet")))
    assert found.factors.share_agreeing == 1.0 and found.searches == found.same_lists == 24 and found.missing == 0
    assert found.factors.compared == sum(len(v) for x in lines for v in x["query_attributes"]["served"]["factors"].values())

    # So is a log of format 1, and one that was compressed.
    old = [json.loads(json.dumps(x)) for x in lines]
    for x in old:
        del x["query_attributes"]["bucket"]
        for name in ("format", "pair", "lists", "log"):
            del x["query_attributes"]["served"][name]
        x["query_attributes"]["served"] |= {"texts": True, "counterfactual": None}
    (tmp_path / "old.ndjson.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, old)).encode()))
    again = replay_log(tmp_path / "old.ndjson.gz", made.registry, bundled(made.catalogue))
    assert (again.factors, again.searches, again.same_lists, again.passed_over) == (found.factors, 24, 24, 0)

    # A log that tells something else is found out: one factor of one document, and a whole rewrite.
    path = next(log.iterdir())
    changed = next(x for x in lines if x["query_attributes"]["served"]["used_at"])
    changed["query_attributes"]["served"]["factors"]["original.relevance"][0] *= 1 + 1e-4
    path.write_text("".join(json.dumps(x) + "\n" for x in lines) + "no line\n")
    found = replay_log(log, made.registry, bundled(made.catalogue))
    assert found.factors.share_agreeing == 1 - 1 / found.factors.compared and found.passed_over == 1

    async def late(queries, n):
        await asyncio.sleep(0.15)
        return [["music video"]] * len(queries)

    async def go():
        deadlines = {"recall": 10, "rawrank": 10, "finerank": 10_000}
        config = made.config(log={"folder": tmp_path / "late", "query_text": True}, deadlines=deadlines)
        async with kit.running(config, late) as client:
            for query in made.queries(4):
                assert (await client.search(query))["signal_status"]["rawrank.dense"] == "timeout"

    asyncio.run(go())
    found = replay_log(tmp_path / "late", made.registry, bundled(made.catalogue))
    assert found.factors.share_agreeing == 1.0 and found.same_lists == 4


def test_a_full_disk_is_counted_and_no_search_fails(made, kit, tmp_path, monkeypatch):
    real, calls = os.write, []

    def first_part_only(file, data):
        calls.append(len(data))
        if len(calls) % 2:
            return real(file, data[:300])  # the last bytes that fit
        raise OSError(errno.ENOSPC, "No space left on device")

    async def go():
        config = made.config(log={"folder": tmp_path / "log", "query_text": True, "counterfactual_share": 0})
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            ubi = client.service._ubi
            await client.search("one")
            await kit.until(lambda: ubi.written == 1)
            monkeypatch.setattr("corewrite.serving.ubi_log.os.write", first_part_only)
            for i in range(3):
                await client.search(f"lost {i}")
            await kit.until(lambda: ubi.dropped == 3)
            metrics = (await client.http.get("/metrics")).text
            assert "corewrite_log_lines_dropped 3.0" in metrics
            monkeypatch.setattr("corewrite.serving.ubi_log.os.write", real)
            await client.search("two")
            await kit.until(lambda: ubi.written == 2)

    asyncio.run(go())
    log = read_log(sorted((tmp_path / "log").iterdir()))
    assert sorted(log.searches.execute()["query"]) == ["one", "two"]  # what was cut off spoils itself only
    assert log.report.lost == 3


def test_a_folder_that_cannot_be_made_is_counted_too(tmp_path):
    (tmp_path / "file").write_text("")
    log = UbiLog(LogSettings(folder=tmp_path / "file" / "log", insecure=True))
    log.put(Numbered(1))
    log.close()
    assert (log.written, log.dropped) == (0, 1)


def test_files_are_rotated_and_the_queue_is_bounded(tmp_path):
    log = UbiLog(LogSettings(folder=tmp_path, rotate_bytes=2**16, insecure=True))
    for i in range(300):
        log.put(Numbered(i))
    log.close()
    files = sorted(tmp_path.iterdir(), key=lambda p: int(p.stem.split("-")[-1]))
    assert len(files) > 1
    assert [json.loads(line)["n"] for f in files for line in f.read_text().splitlines()] == list(range(300))


def test_a_warmed_cache_answers_the_head_queries_of_a_new_policy_at_once(platform, kit, tmp_path):
    serve_some(platform, kit, tmp_path / "log")
    queries = head_queries(sorted((tmp_path / "log").iterdir()), 5)
    assert len(queries) == 5 and queries[0].text in platform.queries(8)
    second = platform.second.policy
    folder = platform.registry.path(platform.registry.artifact("policy", second))
    found = warm(load_rewriter(folder), second, queries, max_new_tokens=14)
    path = write_warm(tmp_path / "warm", second, found)
    with path.open("a") as out:
        out.write('no json\n{"key": "k", "rewrites": ["two\\nlines"]}\n{"key": 1, "rewrites": []}\n[]\n')
    assert dict(read_warm(tmp_path / "warm", second)) == found and len(found) == 5
    assert dict(read_warm(tmp_path / "warm", "another")) == {}

    # The server reads it before the switch: the first search of a head query is answered from memory.
    async def go():
        service = Service(platform.config(cache={"warm_folder": tmp_path / "warm"}))
        rewriter = service._rewriter(second, folder)
        await rewriter.open()
        for query in queries:
            assert rewriter.ask(query).done()
        assert (await rewriter.ask(queries[0])).reason in {"cached", "nothing"}
        await rewriter.close()
        await service.close()

    asyncio.run(go())


def test_a_sealed_log_is_replayed_with_its_keys_and_says_why_not_without(made, kit, tmp_path):
    public, _ = make_keys(tmp_path / "keys")
    log, queries = tmp_path / "log", made.queries(3)

    async def go():
        config = made.config(log={"folder": log, "seal_to": public}, arms={**dict.fromkeys(ARMS, 0), "all_stages": 1})
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            for query in queries:
                await client.search(query)

    asyncio.run(go())
    with pytest.raises(ReplayError, match=r"3 whose texts are sealed \(name their keys as `privacy.keys`"):
        replay_log(log, made.registry, bundled(made.catalogue))
    assert replay_log(log, made.registry, bundled(made.catalogue), unseal=load_keys(tmp_path / "keys").open_line).searches == 3
    file = made.file(tmp_path / "corewrite.yaml")
    file.write_text(json.dumps({**json.loads(file.read_text()), "privacy": {"keys": str(tmp_path / "keys")}}))
    told = CliRunner().invoke(app, ["replay", str(log), "--config", str(file), "--json"], catch_exceptions=False)
    assert told.exit_code == 0 and json.loads(told.stdout)["searches"] == 3


def test_what_could_not_be_scored_is_compared_with_nothing_and_is_not_replayed(made, kit, tmp_path):
    log = tmp_path / "log"
    query = made.queries(3)[1]

    async def go(arm, rule):
        config = made.config(
            log={"folder": log / arm, "query_text": True, "counterfactual_share": 1}, arms={**dict.fromkeys(ARMS, 0), arm: 1}
        )
        async with kit.running(config, kit.as_title(made.catalogue)) as client:
            full = client.service.versions.present.cascades["all_stages"].signals["relevance"]
            own, full.score = full.score, lambda texts, rows: rule(own, texts, rows)
            await client.search(query)
        return [json.loads(line) for path in (log / arm).iterdir() for line in path.read_text().splitlines()]

    def no_rewrites(own, texts, rows):
        return own(texts, rows) if list(texts) == [query] else np.where(rows >= 0, np.nan, 0.0)

    (control,) = asyncio.run(go("none", no_rewrites))
    assert control["query_attributes"]["served"]["lists"] is None and control["query_attributes"]["impacted"] is None
    (treated,) = asyncio.run(go("all_stages", no_rewrites))
    assert treated["query_attributes"]["served"]["signal_status"]["finerank.relevance"] == "error"
    assert treated["query_attributes"]["served"]["lists"] is None and treated["query_attributes"]["impacted"] is None
    with pytest.raises(ReplayError, match="1 in which a model did not answer in time"):
        replay_log(log / "all_stages", made.registry, bundled(made.catalogue))
    assert replay_log(log / "none", made.registry, bundled(made.catalogue)).factors.share_agreeing == 1.0


def test_a_line_that_cannot_be_made_is_counted(made, kit, tmp_path, monkeypatch):
    monkeypatch.setattr("corewrite.serving.recording.build_line", None)

    async def go():
        async with kit.running(made.config(log={"folder": tmp_path}), kit.as_title(made.catalogue)) as client:
            await client.search("lion")
            await kit.until(lambda: client.service._ubi.dropped == 1)

    asyncio.run(go())


def test_a_file_that_cannot_be_synced_is_closed(tmp_path, monkeypatch):
    synced = []

    def broken(file):
        synced.append(file)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("corewrite.serving.ubi_log.os.fsync", broken)
    log = UbiLog(LogSettings(folder=tmp_path, insecure=True))
    log.put(Numbered(1))
    log.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(synced[0])


def test_a_warm_folder_is_read_beside_the_event_loop(platform, kit, tmp_path, monkeypatch):
    readers = []

    def read(folder, policy):
        readers.append(threading.current_thread())
        return iter([("key", ("a rewrite",))])

    monkeypatch.setattr("corewrite.serving.service.read_warm", read)

    async def go():
        service = Service(platform.config(cache={"warm_folder": tmp_path}))
        rewriter = service._rewriter(platform.first.policy, tmp_path)
        with pytest.raises(WorkerError):  # an empty folder is no policy
            await rewriter.open()
        assert service.memory.peek("key") == ("a rewrite",) and readers[0] is not threading.main_thread()
        await service.close()

    asyncio.run(go())
