"""`corewrite experiment`: from a log to a reading and a plan, and what is refused."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.domain.earlier_config import OldConfigWarning
from corewrite.logs import UbiWriter
from corewrite.logs.sealing import Sealer, make_keys

START = 1_700_000_000.0
DAY = 86_400.0
ARMS = ("none", "all_stages")
CHANGED = (0.4, 0.2)
WORDS = ("lion", "guitar", "sunrise", "chess", "volcano", "puppet", "hockey", "zebra")
PAIR = ["--control", "none", "--treatment", "all_stages"]


def call(*args):
    return CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)


def write_traffic(
    path, users=1_200, days=8, texts="plain", knows=lambda user, step: True, assign_arm=lambda user: ARMS[user % 2],
    pair=ARMS, rewrites=True, names=lambda arm: arm, format=3,
):  # fmt: skip
    """Users who come on some days, search, and are satisfied, type a repair, or give up and type something else at once.

    Treatment shows everybody the same list, so that what it displays would make every next query a repair.
    Returns (user, arm, impacted, ending) of every search, in the order of time.
    """
    rng = np.random.default_rng(0)
    happened = []
    with UbiWriter(path) as out:
        for user in range(users):
            for day in np.flatnonzero(rng.random(days) < 0.3):
                at, typed, word, repaired = START + day * DAY + rng.random() * 80_000, 0, 0, False
                while True:
                    impacted = bool(rng.random() < 0.5)
                    u = rng.random()
                    treated = assign_arm(user) == "all_stages"
                    changed = u < CHANGED[treated and impacted] and not repaired
                    satisfied = u > 0.5
                    ending = "satisfied" if satisfied else "changed_unsatisfied" if changed else "gave_up"
                    query_id, text = f"q{user}-{day}-{typed}", WORDS[(user + word) % len(WORDS)] + " again" * repaired
                    used = ["finerank"] if treated and rewrites else []
                    served = {"format": format, "texts": texts, "pair": list(map(names, pair)), "used_at": used}
                    attributes = {"arm": names(assign_arm(user)), "served": served}
                    if knows(user, typed):
                        attributes["impacted"] = impacted
                    hits = ["d1", "d2", "d3"] if treated else [f"{query_id}-{k}" for k in range(3)]
                    client = f"u{user}"
                    out.query(
                        query_id=query_id, client_id=client, user_query=text, timestamp=at, hit_ids=hits, attributes=attributes
                    )
                    out.event(
                        "watch", query_id=query_id, client_id=client, session_id="", timestamp=at + 5, object_id=hits[0],
                        ordinal=1, watch_seconds=(40.0 if satisfied else 1.0) + u, duration_seconds=100.0,
                    )  # fmt: skip
                    happened.append((client, assign_arm(user), impacted, ending, at))
                    typed, word, at, repaired = typed + 1, word + (not changed), at + 60, changed
                    if not changed and (typed > 5 or rng.random() < 0.5):
                        break
        out.query(
            query_id="last", client_id="z", user_query="z", timestamp=START + days * DAY + 7_200, hit_ids=[], attributes={}
        )
    return sorted(happened, key=lambda row: row[-1])


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "ubi-1.ndjson"
    return path, write_traffic(path)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    path = tmp_path_factory.mktemp("frozen") / "about.json"
    path.write_text(json.dumps({"thresholds": {"edges": [], "seconds": [10.0]}}))
    return path


def first_impacted(happened):
    first = {}
    for user, arm, impacted, ending, _ in happened:
        if impacted:
            first.setdefault(user, (arm, ending))
    return list(first.values())


def rate(happened, arm, ending):
    ends = [e for a, e in first_impacted(happened) if a == arm]
    return ends.count(ending) / len(ends), len(ends)


@pytest.mark.parametrize("command", ["read", "plan"])
def test_help_shows_examples(command):
    shown = " ".join(call("experiment", command, "--help").stdout.split())
    assert f"corewrite experiment {command}" in shown and "Exit code" in shown + "Exit code" * (command == "plan")


def test_a_launch_is_read_as_it_happened(traffic, frozen):
    path, happened = traffic
    result = call("experiment", "read", path.parent, *PAIR, "--share", 0.5, "--thresholds", frozen, "--json")
    found = json.loads(result.stdout)
    for name, ending in (("cqr", "changed_unsatisfied"), ("give_up", "gave_up"), ("satisfied", "satisfied")):
        for side, arm in zip(("control", "treatment"), ARMS, strict=True):
            wanted, n = rate(happened, arm, ending)
            assert found[name][side] == pytest.approx(wanted) and found[name][f"n_{side}"] == n
        assert found["anytime"][name]["low"] < found[name]["ci_low"] < found[name]["ci_high"] < found["anytime"][name]["high"]
    assert found["treated"] == 1.0 and found["cqr"]["ci_high"] < 0
    assert found["users_without_trigger"] == {"none": 0, "all_stages": 0}
    assert found["other_arms"] == {"": 1} and found["name"] == "all_stages against none"
    assert "similar texts alone" in found["log"]["same_intent"] and found["log"]["frozen"] is True
    # Fewer changed queries and more give-up instead: harm, and no gain.
    assert found["give_up"]["ci_low"] > 0.05 and found["harms"] and result.exit_code == 4
    wide = call("experiment", "read", path, *PAIR, "--share", 0.5, "--thresholds", frozen, "--give-up-margin", 3, "--name", "x")
    assert wide.exit_code == 0 and wide.stdout.startswith("x: all_stages against none")
    for words in ("first impacted search", "one look", "any look", "Counts:", "similar texts alone"):
        assert words in " ".join(wide.stdout.split())
    split = call("experiment", "read", path, *PAIR, "--share", 0.9, "--thresholds", frozen)
    assert split.exit_code == 3 and "sample ratio mismatch" in " ".join(split.stdout.split())


def test_a_log_of_before_and_arms_as_they_were_called_give_the_same(traffic, frozen, tmp_path):
    path, _ = traffic
    earlier = {"all_stages": "launch_2"}
    write_traffic(tmp_path / "ubi-1.ndjson", names=lambda arm: earlier.get(arm, arm), format=2)
    options = ("--share", 0.5, "--thresholds", frozen, "--json")
    wanted = call("experiment", "read", path, *PAIR, *options)
    assert call("experiment", "read", tmp_path / "ubi-1.ndjson", *PAIR, *options).stdout == wanted.stdout
    with pytest.warns(OldConfigWarning, match="`arm launch_2` is `all_stages` now"):
        assert (
            call("experiment", "read", path, "--control", "none", "--treatment", "launch_2", *options).stdout == wanted.stdout
        )


def test_the_same_from_the_settings_file(traffic, frozen, tmp_path):
    path, _ = traffic
    config = tmp_path / "corewrite.yaml"
    config.write_text(f"experiment: {{control: none, treatment: all_stages, share: 0.5, thresholds: {frozen}}}\n")
    by_file = call("experiment", "read", path, "-c", config, "--json")
    by_option = call("experiment", "read", path, *PAIR, "--share", 0.5, "--thresholds", frozen, "--json")
    assert by_file.stdout == by_option.stdout
    assert json.loads(call("experiment", "read", path, "-c", config, "--alpha", 0.2, "--json").stdout)["alpha"] == 0.2


def test_a_table_of_searches_is_read(traffic, tmp_path):
    _, happened = traffic
    table = pa.table(
        {
            "user_id": [r[0] for r in happened], "arm": [r[1] for r in happened], "impacted": [r[2] for r in happened],
            "outcome": [r[3] for r in happened], "timestamp": [r[4] for r in happened],
            "plain_changed": [0.0] * len(happened), "watch_seconds": [1.0] * len(happened),
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "searches.parquet")
    found = json.loads(call("experiment", "read", tmp_path / "searches.parquet", *PAIR, "--share", 0.5, "--json").stdout)
    assert found["cqr"]["control"] == pytest.approx(rate(happened, "none", "changed_unsatisfied")[0])
    assert found["log"]["same_intent"].startswith("as the table has it")
    both = call("experiment", "read", tmp_path / "searches.parquet", tmp_path, *PAIR, "--share", 0.5)
    assert both.exit_code == 1 and "give it alone" in both.stderr
    call("ingest", traffic[0], "--out", tmp_path / "ingested")
    displayed = call("experiment", "read", tmp_path / "ingested" / "searches.parquet", *PAIR, "--share", 0.5)
    assert displayed.exit_code == 1 and "told by the displayed lists" in displayed.stderr


def test_a_sealed_log_is_read_with_its_keys(traffic, frozen, tmp_path):
    pytest.importorskip("nacl")
    public, _ = make_keys(tmp_path / "secrets")
    sealer, lines = Sealer(public), []
    for line in traffic[0].read_text().splitlines():
        value = json.loads(line)
        if "arm" in value.get("query_attributes", {}):
            value["user_query"] = sealer.seal(value["query_id"], "user_query", value["user_query"])
            value["query_attributes"]["served"]["texts"] = "sealed"
        lines.append(json.dumps(value))
    (tmp_path / "sealed.ndjson").write_text("\n".join(lines))
    (tmp_path / "corewrite.yaml").write_text(f"privacy: {{keys: {tmp_path / 'secrets'}}}\n")
    options = [*PAIR, "--share", 0.5, "--thresholds", frozen, "--json"]
    closed = call("experiment", "read", tmp_path / "sealed.ndjson", *options)
    assert closed.exit_code == 1 and "`privacy.keys`" in " ".join(closed.stderr.split())
    opened = call("experiment", "read", tmp_path / "sealed.ndjson", *options, "-c", tmp_path / "corewrite.yaml")
    assert opened.stdout == call("experiment", "read", traffic[0], *options).stdout


def test_a_packed_log_is_read_like_its_lines(traffic, frozen, tmp_path):
    assert call("log", "pack", traffic[0], "--out", tmp_path / "packed.parquet").exit_code == 0
    options = [*PAIR, "--share", 0.5, "--thresholds", frozen, "--json"]
    assert call("experiment", "read", tmp_path, *options).stdout == call("experiment", "read", traffic[0], *options).stdout


def test_since_and_until_choose_the_launch(traffic, frozen):
    path, happened = traffic
    since, until = START + 2 * DAY, START + 5 * DAY
    window = [r for r in happened if since <= r[-1] < until]
    options = [*PAIR, "--share", 0.5, "--thresholds", frozen, "--json"]
    iso = "2023-11-16T22:13:20Z"  # START is 2023-11-14T22:13:20Z
    found = json.loads(call("experiment", "read", path, *options, "--since", iso, "--until", until).stdout)
    assert found["searches"] == len(window)
    assert found["cqr"]["treatment"] == pytest.approx(rate(window, "all_stages", "changed_unsatisfied")[0])
    none = call("experiment", "read", path, *options, "--since", START + 99 * DAY)
    assert none.exit_code == 1 and "lies between" in none.stderr


def test_a_plan_and_a_reading_by_its_thresholds(traffic, tmp_path):
    path, happened = traffic
    result = call("experiment", "plan", path, "--effect", 0.3, "--control", "none", "--give-up-margin", 0.5, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["arm"] == "none" and len(found["new_users"]) == 7 and found["days"] is not None
    # Thresholds were fitted on this log: the median of all watch times lies between those that satisfy and the others.
    assert found["cqr"] == pytest.approx(rate(happened, "none", "changed_unsatisfied")[0], abs=0.02)
    assert any("fitted on this very log" in warning for warning in found["log"]["warnings"])
    (tmp_path / "plan.json").write_text(result.stdout)
    reading = call("experiment", "read", path, *PAIR, "--share", 0.5, "--thresholds", tmp_path / "plan.json", "--json")
    assert json.loads(reading.stdout)["log"]["thresholds"] == found["thresholds"]
    shown = " ".join(
        call("experiment", "plan", path, "--effect", 0.3, "--control", "none", "--give-up-margin", 0.5).stdout.split()
    )
    for words in (
        "falls by 30.0 %",
        "with an impacted search, both arms together",
        "take whole weeks",
        "tried out",
    ):
        assert words in shown
    far = call("experiment", "plan", path, "--effect", 0.01, "--control", "none")
    assert far.exit_code == 0 and "cannot be told: more than 28 days" in " ".join(far.stdout.split())


@pytest.mark.parametrize(
    ("traffic_options", "args", "message"),
    [
        ({"texts": "hashed"}, [*PAIR, "--share", 0.5], "hold hashes in the place of texts.*`log.query_text: true`"),
        (
            {}, ["--control", "holdback", "--treatment", "all_stages", "--share", 0.5],
            "no search is in arm 'holdback': there are 'all_stages', 'none'",
        ),
        ({}, ["--control", "none", "--treatment", "none", "--share", 0.5], "both control and treatment"),
        ({}, PAIR, "--share"),
        ({"knows": lambda user, step: user % 2 == 0}, [*PAIR, "--share", 0.5], "of no user in 'all_stages' it is known"),
        (
            {"knows": lambda user, step: user % 2 == 0 or user % 8 == 1}, [*PAIR, "--share", 0.5],
            r"known for 100\.0 % .* and [23]\d\.\d %",
        ),
        ({"assign_arm": lambda user: ""}, [*PAIR, "--share", 0.5], "no search is in arm 'none': there are searches without an"),
        ({"texts": "sealed"}, [*PAIR, "--share", 0.5], "hold sealed texts"),
        (
            {"pair": ("none", "finerank_only")}, [*PAIR, "--share", 0.5],
            "between 'none' and 'finerank_only', not between.*`log.pair`",
        ),
        ({"rewrites": False}, [*PAIR, "--share", 0.5], "of arm 'all_stages' was served with a rewrite"),
        ({}, [*PAIR, "--share", 1.5], "share"),
        ({}, [*PAIR, "--share", 0.5, "--since", "noon"], "timestamp 'noon'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_reason(traffic_options, args, message, tmp_path):
    write_traffic(tmp_path / "log.ndjson", users=120, **traffic_options)
    result = call("experiment", "read", tmp_path / "log.ndjson", *args)
    assert result.exit_code == 1
    assert re.search(message, " ".join(result.stderr.split())), result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["read", "nothing", *PAIR, "--share", 0.5], "nothing is not there"),
        (["read", ".", *PAIR, "--share", 0.5], "holds no log"),
        (["read", "some.json", *PAIR, "--share", 0.5, "--thresholds", "some.json"], "holds no thresholds"),
        (["plan", "some.json", "--effect", 1.5], "effect 1.5"),
    ],
)
def test_errors_name_the_value(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_traffic(tmp_path / "some.json", users=120, assign_arm=lambda user: "")
    result = call("experiment", *args)
    assert result.exit_code == 1 and message in " ".join(result.stderr.split())
