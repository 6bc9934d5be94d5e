"""Who is trained on: nobody of the gate's or of the frozen set, as the log says it; and nothing is learnt from hashes."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.cycle.begin import begin_cycle
from corewrite.cycle.finished_week import FinishedWeek
from corewrite.cycle.mined_week import MinedWindow, build_impressions
from corewrite.cycle.promotion import GatedPromotion
from corewrite.cycle.run import run_cycle
from corewrite.cycle.steps.close import summarise_traffic
from corewrite.cycle.steps.fit_relevance import refit
from corewrite.cycle.steps.mine import mine
from corewrite.cycle.users import build_users, frozen_users, read_users
from corewrite.domain.traffic_split import assign_bucket, is_gate_user, is_holdback_user
from corewrite.logs import LogError, read_evaluation_instances, read_instances, write_instances


def gate_by_hash(wanted: bool, start: int = 0) -> str:
    """A user id that is the gate's by its hash, or is not."""
    return next(f"u{i}" for i in range(start, 1000) if is_gate_user(f"u{i}") == wanted)


GATE, OTHER = gate_by_hash(True), gate_by_hash(False)


def users(*rows):
    """Of searches given as (user, bucket, arm)."""
    user, bucket, arm = (np.array(x, object) for x in zip(*rows, strict=True))
    return build_users(SimpleNamespace(user_id=user, bucket=bucket, arm=arm))


def test_without_buckets_the_split_is_that_of_the_ids_in_the_log():
    names = [f"u{i}" for i in range(500)]
    found = users(*((u, None, "") for u in names))
    assert found.gate == {u for u in names if is_gate_user(u)} and found.held_back is None
    assert [u for u in names if found.is_gate(u) == found.may_train(u)] == []
    assert found.warnings == ("the log does not say in which arm a search was served: nobody is taken for held back",)


def test_a_bucket_is_stronger_than_the_id():
    found = users((GATE, 1999, "x"), (OTHER, 1999, "x"), ("a", 2000, "x"), ("b", 0, "x"))
    assert found.gate == {GATE, OTHER, "b"}
    assert users((GATE, 2000, "x"), (OTHER, 9999, "x")).gate == frozenset()


def test_a_user_is_never_split_in_two():
    # The log got buckets in the middle of the week: one user, one side, that of the bucket.
    found = users((GATE, None, "x"), (GATE, 5000, "x"), (OTHER, 3, "x"), (OTHER, None, "x"), ("a", None, "x"))
    assert GATE not in found.gate and OTHER in found.gate
    assert found.warnings[0] == "2 users have a bucket in some of their searches only: they are split by it"
    torn = users(("a", 1, "x"), ("a", 7000, "x"))
    assert torn.gate == {"a"} and torn.warnings[0].startswith("1 users have several buckets")


def test_held_back_is_who_was_never_served_otherwise():
    found = users(("a", 1, "holdback"), ("a", 1, "holdback"), ("b", 2, "holdback"), ("b", 2, "all_stages"), ("c", 3, "none"))
    assert found.held_back == {"a"} and found.warnings == ()
    nobody = users(("a", 1, "all_stages"), ("z", 5000, "holdback"))  # held back, but not the gate's
    assert nobody.held_back == {"z"} and "favour the champion" in nobody.warnings[0]


@pytest.mark.parametrize("arms", [("holdback", "all_stages"), ("", "")])
def test_the_split_is_kept_with_the_week(tmp_path, arms):
    found = users((GATE, 1, arms[0]), (OTHER, None, arms[1]))
    found.write(tmp_path / "users.parquet")
    again = read_users(tmp_path / "users.parquet")
    assert (again.bucket, again.gate, again.held_back) == ({GATE: 1, OTHER: None}, found.gate, found.held_back)


def mined_week(settings, steps, logs, **changes):
    """A cycle of w1 that has mined its week."""
    config = settings(logs=logs, **changes)
    cycle = begin_cycle(config, "w1", steps=steps, refit=refit, promotion=GatedPromotion())
    return cycle, mine(cycle)


def rewritten(platform, folder, change):
    """The platform's logs of the first two weeks, each document changed."""
    folder.mkdir()
    for name in ("w0.ndjson", "w1.ndjson"):
        lines = [json.loads(line) for line in (platform / "logs" / name).read_text().splitlines()]
        (folder / name).write_text("".join(json.dumps(change(line)) + "\n" for line in lines))
    return folder


def with_bucket(line):
    if "user_query" in line:
        # As `corewrite serve` logs it: the bucket of the id, and the id no more.
        line["query_attributes"]["bucket"] = assign_bucket(line["client_id"])
    return line | {"client_id": f"hash of {line['client_id']}"}


def test_a_log_of_hashed_ids_is_split_as_one_of_the_ids_themselves(platform, settings, steps, tmp_path):
    """6.1 % of the users that the cycle took for held back were: it hashed the log's hashes."""
    _, plain = mined_week(settings, steps, platform / "logs", name="plain")
    _, hashed = mined_week(settings, steps, rewritten(platform, tmp_path / "logs", with_bucket), name="hashed")
    for limit in (15, 30, 100):
        ids = [[x.instance_id for x in w.for_gate(limit)] for w in (plain, hashed)]
        assert ids[0] == ids[1] and ids[0]
        back = [x.user_id for x in hashed.for_gate(limit)]
        assert np.mean([is_holdback_user(u.removeprefix("hash of ")) for u in back]) >= (1 / 3 if limit < 100 else 0)
    assert [x.instance_id for x in plain.instances()] == [x.instance_id for x in hashed.instances()]
    repairs = [(*w.reformulations(), w.gate_repairs()) for w in (plain, hashed)]
    for a, b in zip(*repairs, strict=True):
        assert [f"hash of {r.user_id}" for r in a] == [r.user_id for r in b] and a
    assert plain.endings() == hashed.endings() and plain.endings()["holdback"].total() > 0
    # By the ids in the log it would have been another split.
    assert {x.user_id for x in hashed.instances() if is_gate_user(x.user_id)}


def test_without_arms_nobody_is_taken_for_held_back(platform, settings, steps, tmp_path):
    def without_arm(line):
        line.get("query_attributes", {}).pop("arm", None)
        return line

    cycle, window = mined_week(settings, steps, rewritten(platform, tmp_path / "logs", without_arm))
    assert any("does not say in which arm" in w for w in window.about["warnings"])
    assert set(summarise_traffic(cycle)) == {"served"}
    # As they come, none before the others.
    assert window.for_gate(30) == read_evaluation_instances(window.folder / "gate.parquet")[:30]


def test_a_week_that_was_mined_before_is_read_as_it_was(platform, settings, steps):
    _, window = mined_week(settings, steps, platform / "logs")
    now = window.for_gate(20), window.endings()
    (window.folder / "users.parquet").unlink()
    table = pq.read_table(window.folder / "searches.parquet")
    kept = [n for n in table.column_names if n not in ("bucket", "impacted", "pair")]
    pq.write_table(table.select(kept), window.folder / "searches.parquet")
    # Here the arms are those of the hash, which is what such a week was read by.
    before = MinedWindow(window.folder)
    assert (before.for_gate(20), before.endings()) == now


def test_no_user_of_a_frozen_set_is_trained_on_whatever_splits_them_today(platform, settings, steps, tmp_path):
    _, window = mined_week(settings, steps, platform / "logs", name="first")
    trained = {x.user_id for x in window.instances()} & {r.user_id for part in window.reformulations() for r in part}
    # The set was frozen when the log had no buckets, or other ones: three of its users are not the gate's today.
    frozen = sorted(trained & set(build_impressions([window], window_documents(platform)).user_ids))[:3]
    path = tmp_path / "frozen-before.parquet"
    held = [replace(x, evaluation_only=False) for x in window.instances() if x.user_id in frozen]
    write_instances(held, path, evaluation_only=True)
    assert frozen_users(path) == set(frozen) and len(frozen) == 3

    cycle, again = mined_week(settings, steps, platform / "logs", name="second", frozen=path)
    assert {x.user_id for x in read_instances(again.folder / "instances.parquet")} >= set(frozen)
    for name in ("w0", "w1"):
        week = cycle.window(name)
        seen = build_impressions([week], window_documents(platform)).user_ids
        for found in (week.instances(), *week.reformulations()):
            assert found and not {x.user_id for x in found} & set(frozen)
        assert seen and not set(seen) & set(frozen)
    # All others are there still.
    assert {x.user_id for x in window.instances()} - {x.user_id for x in again.instances()} == set(frozen)


def window_documents(platform):
    from corewrite.search.documents import read_catalogue

    return read_catalogue(platform / "documents.parquet")


def test_a_frozen_set_that_is_not_marked_is_refused(tmp_path, platform, settings, steps):
    _, window = mined_week(settings, steps, platform / "logs")
    write_instances(window.instances()[:3], tmp_path / "open.parquet")
    with pytest.raises(ValueError, match="not marked as the gate's"):
        frozen_users(tmp_path / "open.parquet")
    assert frozen_users(tmp_path / "none.parquet") == frozenset()


def hashed_text(line):
    if "user_query" in line:
        line["user_query"] = f"{hash(line['user_query']) & 2**128 - 1:032x}"
        line["query_attributes"]["served"] = {"texts": False}
    return line


def test_a_log_of_hashes_is_refused_before_anything_is_made(platform, settings, steps, tmp_path):
    logs = rewritten(platform, tmp_path / "logs", hashed_text)
    config = settings(logs=logs)
    with pytest.raises(LogError, match=r"w0.ndjson: \d+ of \d+ searches hold hashes .* `log.query_text: true`"):
        run_cycle(config, "w1", steps=steps)
    assert not (config.run / "windows").exists() and not config.frozen.exists()
    file = tmp_path / "corewrite.yaml"
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json(exclude_defaults=True))))
    told = CliRunner().invoke(app, ["cycle", "run", "-c", str(file), "--week", "w1"])
    assert told.exit_code == 1 and "log.query_text: true" in " ".join(told.output.split())
    paths = [
        str(platform / "documents.parquet"),
        str(logs / "w0.ndjson"),
        str(logs / "w1.ndjson"),
        str(platform / "labels.parquet"),
    ]
    told = CliRunner().invoke(
        app, ["train", "--documents", paths[0], "--earlier-log", paths[1], "--log", paths[2], "--labels", paths[3], "--out",
              str(tmp_path / "out")],
    )  # fmt: skip
    assert told.exit_code == 1 and "log.query_text: true" in " ".join(told.output.split())


def test_the_few_hashed_searches_of_a_week_are_left_out(platform, settings, steps, tmp_path):
    count = 0

    def some(line):
        nonlocal count
        count += "user_query" in line
        return hashed_text(line) if "user_query" in line and count % 5 == 0 else line

    _, window = mined_week(settings, steps, rewritten(platform, tmp_path / "logs", some))
    texts = pq.read_table(window.folder / "searches.parquet")["query"].to_pylist()
    assert texts and not [t for t in texts if len(t) == 32 and " " not in t]
    assert any("hold no text that can be read" in w for w in window.about["warnings"])


def test_a_retrain_of_a_finished_week_leaves_the_frozen_users_out(platform, settings, steps, monkeypatch):
    cycle, _ = mined_week(settings, steps, platform / "logs")
    champion = SimpleNamespace(relevance="", spec="")
    monkeypatch.setattr("corewrite.cycle.finished_week.load_history", lambda run: [{"week": "w1"}])
    monkeypatch.setattr("corewrite.cycle.finished_week.load_deployment", lambda *a: None)
    monkeypatch.setattr("corewrite.cycle.finished_week.fitted_judge", lambda *a: None)
    registry = SimpleNamespace(champion=lambda: champion)
    monkeypatch.setattr("corewrite.cycle.finished_week.Registry", lambda path: registry)
    assert FinishedWeek(cycle.config, None).window.left_out == frozen_users(cycle.config.frozen) != frozenset()
