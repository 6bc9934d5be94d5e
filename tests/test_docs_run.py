"""Every block of code and every command in README and docs runs, or is read by the reader that it is for."""

import ast
import configparser
import importlib
import json
import re
import shlex
import sys
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.cycle.config_sections import CycleSections, DataSections
from corewrite.deployment.settings import RankerSection
from corewrite.domain import Catalogue, Query, TrainingInstance
from corewrite.domain.config_file import SECTIONS, read_config
from corewrite.evaluation.conversations.reader import read_conversations
from corewrite.fusion import default_spec, parse_spec
from corewrite.logs import read_log
from corewrite.rewriter import Example, fine_tune, new_small_decoder
from corewrite.serving.schemas import EventBatch, ExplainRequest, RewriteBatch, RewriteRequest, SearchRequest
from corewrite.serving.settings import ServeSections

sys.path.insert(0, str(Path(__file__).parent))
from commands import COMMANDS, named, parsed
from docs_blocks import BLOCKS, PAGES, ROOT

NOT_RUN = {
    "docs/evidence/test-ranker.md": 1,  # trains rankers, starts a model server
    "docs/how-to/deploy.md": 2,  # a container
    "docs/how-to/schedule.md": 1,  # Airflow
    "docs/how-to/train.md": 2,  # vLLM
}
SHOWN = ("text",)
"""Diagrams, formulas and, in compile-spec.md, what test_docs.py of the compilers compares with what is emitted."""
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
TARGETS = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1].split()


def of(*languages):
    return [block for block in BLOCKS if block.language in languages and block.not_run is None]


def test_every_block_is_of_a_kind_that_is_checked_here_or_says_why_not():
    known = {"python", "yaml", "json", "sh", "toml", "ini", "cron", "text"}
    assert [str(b) for b in BLOCKS if b.not_run is None and b.language not in known] == []
    assert Counter(b.page for b in BLOCKS if b.not_run is not None) == NOT_RUN


def test_code_is_fenced_and_so_found():
    for page in PAGES:
        outside = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text("utf-8"))
        assert not re.findall(r"(?m)^ {4,}(?:\$ )?(?:corewrite|make|pip|python|curl) .*$", outside), page.name


# Commands


def lines_of(text):
    """Commands of a block: continued lines, and those within quotes, joined; comments left out."""
    found = [""]
    for line in text.replace("\\\n", " ").splitlines():
        found[-1] = f"{found[-1]}\n{line}".strip()
        if re.sub(r"#.*", "", found[-1]).count("'") % 2 == 0:  # else the quotes go on
            found.append("")
    return [line for line in found if line and not line.startswith("#")]


def check_command(line):
    """A command line as a shell would take it.

    Raises:
        AssertionError, or what the command line raises: there is no such command, option, file, extra or target.
    """
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    program, rest = words[0], words[1:]
    if program == "corewrite":
        parsed(line)
    elif program == "make":
        assert {w for w in rest if "=" not in w} <= set(TARGETS), f"no target in {line!r}"
    elif program in ("pip", "python3.11") and (rest[:1] == ["install"] or rest[:2] == ["-m", "venv"]):
        for extras in re.findall(r"(?:corewrite|\.)\[([\w,-]+)\]", line):
            assert set(extras.split(",")) <= EXTRAS.keys(), f"no such extra in {line!r}"
        assert all((ROOT / name).exists() for name in re.findall(r"-c (\S+)", line))
    elif program == "python" and rest[0] == "-c":
        for node in ast.walk(ast.parse(rest[1])):
            for name in node.names if isinstance(node, ast.ImportFrom) else ():
                assert hasattr(importlib.import_module(node.module), name.name), f"no {name.name} in {node.module}"
    elif program == "python":
        file = rest[0] if rest[0] != "-m" else rest[1].replace(".", "/") + ".py"
        assert (ROOT / file).exists(), file
    elif program.endswith("/pytest"):
        assert all((ROOT / w).exists() for w in rest if not w.startswith("-"))
    elif program == "curl":
        (body,) = [words[i + 1] for i, w in enumerate(words) if w == "-d"]
        check_body(json.loads(body), next(w for w in rest if w.startswith("localhost")))
    else:
        assert program in ("export", "mv"), f"{program!r} is not checked: mark the block with a reason"


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_commands_parse(block):
    for line in lines_of(block.text):
        for command in re.split(r" (?:&&|;) ", line):
            if not command.startswith(". "):
                check_command(command)


@pytest.mark.parametrize("block", of("cron"), ids=str)
def test_commands_of_a_crontab_parse(block):
    for line in lines_of(block.text):
        fields = line.split(None, 6)
        assert all(re.fullmatch(r"[\d*/,-]+", f) for f in fields[:5])
        parsed(fields[6])


def test_a_wrong_command_would_be_found():
    for wrong in (
        "make no-such",
        "pip install 'corewrite[no-such]'",
        "python tools/no_such.py",
        "docker run x",
        "corewrite cycles run",
    ):
        with pytest.raises(AssertionError):
            check_command(wrong)


CALLS = [(p.relative_to(ROOT), call) for p in PAGES for call in re.findall(r"`(corewrite [a-z][^`]*)`", p.read_text("utf-8"))]


@pytest.mark.parametrize(("page", "call"), CALLS, ids=lambda x: str(x))
def test_commands_within_sentences_have_their_options(page, call):
    words = shlex.split(call)[1:]
    path = named(words)
    if path is None:  # a group, such as `corewrite cycle`, or "plan | read"
        assert any(p[0] == words[0] for p in COMMANDS), f"{page}: {call}"
        return
    options = {o for param in COMMANDS[path].params for o in (*param.opts, *param.secondary_opts)}
    assert {w.split("=")[0] for w in words if re.match(r"--?[a-z]", w)} <= options | {"--help"}, f"{page}: {call}"


def test_targets_within_sentences_exist():
    for page in PAGES:
        for target in re.findall(r"`make ([a-z]+)", page.read_text("utf-8")):
            assert target in TARGETS, page.name


def test_cheap_commands_do_what_the_pages_say(tmp_path, monkeypatch):
    """Compiling, making keys and ingesting, as shown: with the example's spec and the example's lines of log."""
    monkeypatch.chdir(tmp_path)
    Path("fusion.yaml").write_text(next(b.text for b in of("yaml") if b.page.endswith("compile-spec.md")), "utf-8")
    (block,) = [b for b in of("sh") if b.page.endswith("compile-spec.md")]
    Path("schemas/video").mkdir(parents=True)
    for line in lines_of(block.text):
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
    assert Path("schemas/video/corewrite.profile").read_text().startswith("# fusion spec")
    log = [json.loads(b.text) for b in of("json") if b.page.endswith("your-own-log.md") and "timestamp" in b.text]
    Path("log.ndjson").write_text("".join(json.dumps(line) + "\n" for line in log), "utf-8")
    result = CliRunner().invoke(app, ["ingest", "log.ndjson", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["queries"] == 1 and found["actions"] == {"watch": 1} and found["rejected"] == 0
    result = CliRunner().invoke(app, ["log", "keys", "secrets"])
    assert result.exit_code == 0 and list(Path("secrets").glob("*.public"))


# Files


RANKS = {"run": "r", "documents": "d", "logs": "l", "labels": "g", "frozen": "f"}
READERS = (CycleSections, DataSections, ServeSections, RankerSection)


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_is_read_by_its_reader(block, tmp_path, recwarn):
    keys = set(yaml.safe_load(block.text))
    if keys & {"rawrank", "finerank"}:
        parse_spec(block.text)
    elif "containers" in keys:
        (container,) = yaml.safe_load(block.text)["containers"]
        parsed(f"corewrite serve --config corewrite.yaml {shlex.join(container['args'])}")
    else:
        assert keys <= SECTIONS.keys(), f"{keys - SECTIONS.keys()} are no sections of corewrite.yaml"
        file = tmp_path / "corewrite.yaml"
        # A hash that is cut short in the page; the margin of a check of a package that is not installed here.
        text = re.sub(r"\b[0-9a-f]{4}\.\.\.", "a" * 64, block.text).replace("repeated_words", "distinct_2")
        file.write_text(text, "utf-8")
        for kind in READERS:
            rest = {k: v for k, v in RANKS.items() if k in kind.model_fields and k not in keys}
            read_config(file, kind, **rest)
    assert not recwarn, "nothing as in earlier versions"


def check_body(body, place):
    """A body of a request."""
    kinds = {"/v1/search": [SearchRequest], "/v1/events": [EventBatch], "/v1/explain": [ExplainRequest]}
    kinds["/v1/rewrite"] = [RewriteBatch if "batch" in body else RewriteRequest]
    (found,) = [kind for path, of_path in kinds.items() if place.endswith(path) for kind in of_path]
    found.model_validate(body)


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_is_what_is_read(block, tmp_path):
    value = json.loads(block.text)
    if "user_query" in value or "action_name" in value:
        search = {"query_id": value["query_id"], "client_id": "u", "user_query": "x", "timestamp": value["timestamp"]}
        lines = [value] if "user_query" in value else [search, value]
        (tmp_path / "log.ndjson").write_text("".join(json.dumps(x) + "\n" for x in lines), "utf-8")
        report = read_log([tmp_path / "log.ndjson"]).report
        assert report.rejected == 0 and report.lines == len(lines)
    elif "conversation" in value:
        (tmp_path / "turns.jsonl").write_text(json.dumps(value), "utf-8")
        (tmp_path / "passages.jsonl").write_text(json.dumps({"id": value["passage"], "text": "x"}), "utf-8")
        assert read_conversations([tmp_path / "turns.jsonl"], [tmp_path / "passages.jsonl"]).turns
    elif "events" in value:
        check_body(value, "/v1/events")
    elif "batch" in value:
        check_body(value, "/v1/rewrite")
    elif "rewrite" in value:
        check_body(value, "/v1/explain")
    elif "query" in value:
        check_body(value, "/v1/search")
    else:
        assert "pow" in value or "ranking" in value["query_attributes"]


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_toml_names_entry_points_that_exist(block):
    from corewrite.domain import plugins

    groups = tomllib.loads(block.text)["project"]["entry-points"]
    assert groups.keys() <= {v for v in vars(plugins).values() if isinstance(v, str)}


@pytest.mark.parametrize("block", of("ini"), ids=str)
def test_units_start_commands_that_exist(block):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(block.text)
    parsed(unit["Service"]["ExecStart"])


# Python


def catalogue():
    visual = np.eye(4, dtype=np.float32)
    titles = ("red lion", "lion dance", "how to cook rice", "snow")
    return Catalogue(("a", "b", "c", "d"), titles, ("",) * 4, visual, np.ones(4), np.ones(4))


def onnx_ranker(folder):
    """The logit is the number of tokens: not a good ranker, but one."""
    import onnx
    from onnx import helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(n, onnx.TensorProto.INT64, ["pairs", "tokens"]) for n in names]
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["mask", "axis"], ["score"], keepdims=1),
    ]
    out = helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["pairs", 1])
    axis = onnx.numpy_helper.from_array(np.array([1], np.int64), "axis")
    folder.mkdir(parents=True)
    graph = helper.make_graph(nodes, "ranker", inputs, [out], [axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "model.onnx")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "red": 1, "lion": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def for_plug_in(folder, monkeypatch):
    import qdrant_client

    onnx_ranker(folder / "models" / "ranker")
    # The real client, in its local mode: no server is at hand.
    local = qdrant_client.QdrantClient
    monkeypatch.setattr(qdrant_client, "QdrantClient", lambda url, **rest: local(":memory:"))

    class Dense:
        document_vectors = np.eye(4, dtype=np.float32)

    return {"catalogue": catalogue(), "dense": Dense(), "rows": np.arange(4)[None]}


def for_train(folder, monkeypatch):
    asked = [Query(text) for text in ("cat", "dog")]
    policy = new_small_decoder(["cat", "cat show", "dog", "dog show"] * 4, seed=0, vocabulary=300, width=32, heads=2)
    shown = [Example(q, text) for q in asked for text in (q.text, f"{q.text} show", "show")]
    fine_tune(policy, shown, epochs=150, seed=0, batch=6, learning_rate=5e-3)
    policy.save(folder / "my-causal-lm")

    def reward(instances, texts):
        return [np.array([float(len(t)) - len(x.query.text) for t in row]) for x, row in zip(instances, texts, strict=True)]

    instances = [TrainingInstance(f"q{i}", "u", q, ("a",), (1.0,), ("b",), (1.0,), 0.0) for i, q in enumerate(asked)]
    return {"instances": instances, "reward": reward}


def for_ab_test(folder, monkeypatch):
    rng = np.random.default_rng(0)
    arm = np.repeat(["finerank_only", "all_stages"], 400)
    outcome = np.where(rng.random(800) < np.where(arm == "finerank_only", 0.4, 0.2), "changed_unsatisfied", "satisfied")
    table = pa.table(
        {
            "user_id": [f"u{i}" for i in range(800)],
            "arm": arm,
            "timestamp": np.arange(800.0),
            "outcome": outcome,
            "impacted": [True] * 800,
            "plain_changed": np.zeros(800),
            "watch_seconds": np.ones(800),
        }
    )
    pq.write_table(table, folder / "searches.parquet")
    return {}


def for_compile(folder, monkeypatch):
    text = next(b.text for b in of("yaml") if b.page.endswith("compile-spec.md"))
    (folder / "fusion.yaml").write_text(text, "utf-8")
    return {}


def for_own_ranker(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return {}


PREPARE = {
    "docs/how-to/ab-test.md": for_ab_test,
    "docs/how-to/compile-spec.md": for_compile,
    "docs/how-to/plug-in.md": for_plug_in,
    "docs/how-to/train.md": for_train,
    "docs/tutorials/your-own-ranker.md": for_own_ranker,
}


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = PREPARE[block.page](tmp_path, monkeypatch) if block.page in PREPARE else {}
    exec(compile(block.text, str(block), "exec"), names)


def test_what_the_blocks_give(tmp_path, monkeypatch, capsys):
    """Blocks that run may still show nonsense: what a reader would look at is there."""
    monkeypatch.chdir(tmp_path)
    train, ab = (next(b for b in of("python") if b.page == f"docs/how-to/{p}.md") for p in ("train", "ab-test"))
    names = for_train(tmp_path, monkeypatch)
    exec(train.text, names)
    assert names["report"].phases == 4
    for_ab_test(tmp_path, monkeypatch)
    exec(ab.text, names := {})
    assert names["reading"].cqr.high < 0, "fewer changed queries in treatment"


def test_the_scorer_shown_is_the_example_and_gives_what_the_page_says(monkeypatch, capsys):
    shown, used = (b.text for b in of("python") if b.page.endswith("your-own-ranker.md"))
    example = (ROOT / "examples" / "own_scorer.py").read_text("utf-8")
    assert example.endswith(shown), "docs/tutorials/your-own-ranker.md shows examples/own_scorer.py below its head"
    exec(used, for_own_ranker(None, monkeypatch))
    said = json.loads(re.search(r"# .*: (\[.+\])$", used, re.MULTILINE)[1])
    assert np.fromstring(capsys.readouterr().out.strip("[]\n"), sep=" ") == pytest.approx(said, abs=0.005)


def test_the_check_shown_is_the_example():
    (shown,) = [b.text for b in of("python") if b.page.endswith("add-check.md")]
    example = (ROOT / "examples" / "own_check.py").read_text("utf-8")
    assert example.endswith(shown), "docs/how-to/add-check.md shows examples/own_check.py below its head"


def test_the_default_spec_shown_is_the_packaged_one():
    (shown,) = [b.text for b in of("yaml") if b.page.endswith("fusion-spec.md")]
    assert parse_spec(shown) == default_spec()
