"""What a training starts from: the log's reformulations, the pairs of a file, or the model as it is."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corewrite.cycle import WarmStartConfig
from corewrite.cycle.begin import _hash_settings
from corewrite.cycle.config import CycleConfig
from corewrite.cycle.pairs_file import read_pairs
from corewrite.cycle.steps.warm_start import warm_start
from corewrite.deployment.inputs import InputError, check_inputs
from corewrite.domain import ConfigError, Context, Query, query_columns
from corewrite.domain.settings import read_settings
from corewrite.logs import Reformulation
from corewrite.rewriter import Example, RewriterError, TemplateChoice, greedy, load_rewriter, new_small_decoder

PAIRS = [
    Example(Query("lion", Context(("zoo",), ("The red lion",), "en-us")), "red lion"),
    Example(Query("rice", Context(locale="en_US")), "how to cook rice"),
    Example(Query("cats", Context((), ("The answer: cats purr.",))), "why cats purr"),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A small model that is no rewriter."""
    folder = tmp_path_factory.mktemp("plain") / "model"
    made = new_small_decoder([e.target for e in PAIRS] * 30, seed=0, vocabulary=330, width=48, layers=2, heads=2)
    made.model.config.max_position_embeddings = 500
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rewrites.parquet"
    pq.write_table(pa.table({**query_columns([e.query for e in PAIRS]), "rewrite": [e.target for e in PAIRS]}), path)
    return path


def settings(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    return read_settings(tmp_path / "s.yaml", WarmStartConfig)


def test_pairs_are_read_with_and_without_a_context(file, tmp_path):
    assert read_pairs(file) == PAIRS
    pq.write_table(pa.table({"query": ["lion"], "rewrite": [" red  lion "], "more": [1]}), file)
    assert read_pairs(file) == [Example(Query("lion"), "red lion")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": ["a"]}, "rewrite"),
        ({"query": pa.array([], pa.string()), "rewrite": pa.array([], pa.string())}, "has no rows"),
        ({"query": ["a", "b"], "rewrite": ["c", None]}, "row 2: rewrite must be a text, not None"),
        ({"query": ["a", " "], "rewrite": ["c", "d"]}, "row 2: query must be a text, not ' '"),
        ({"query": ["a"], "rewrite": ["two\nlines"]}, "row 1: rewrite 'two.nlines' would be served as 'two'"),
        ({"query": ["a"], "rewrite": ["x" * 121]}, "120 characters at most"),
        (
            {"query": ["a"], "rewrite": ["b"], "context_titles": [["t", None]]},
            "row 1: None in a query or its context is",
        ),
    ],
)
def test_pairs_that_are_refused(tmp_path, columns, message):
    path = tmp_path / "rewrites.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*{message}"):
        read_pairs(path)


def test_a_missing_file_or_column_is_told_before_anything_is_done(tmp_path, file):
    check_inputs(pairs=file)
    with pytest.raises(InputError, match=r"pairs: .*none.parquet"):
        check_inputs(pairs=tmp_path / "none.parquet")
    pq.write_table(pa.table({"query": ["a"], "target": ["b"]}), file)
    with pytest.raises(InputError, match=r"pairs: .*rewrite"):
        check_inputs(pairs=file)


@pytest.mark.parametrize("kind", ["reserved", "few_shot"])
def test_it_learns_the_pairs(deployment, plain, file, tmp_path, kind):
    config = settings(
        tmp_path,
        f"start: pairs\npairs: {file}\nlearning_rate_pretrained: 0.01\ntemplate: {{kind: {kind}, max_tokens: 300}}\n",
    ).model_copy(update={"epochs": 64 * 40})
    # What the log says is not looked at.
    logged = [Reformulation(Query("other", Context(locale="de")), "another", f"u{i}") for i in range(9)]
    policy, report = warm_start(logged, logged, deployment, config, seed=0, model=str(plain))
    assert report.kinds == {"pairs": 3} and report.fit.examples == 3
    assert policy.template.config.kind == kind and policy.template.config.home_locale == "en-us"
    assert [(r.text, r.ended) for r in greedy(policy, [e.query for e in PAIRS])] == [(e.target, True) for e in PAIRS]


def test_without_fine_tuning_it_is_the_model_as_it_is(deployment, plain, tmp_path):
    config = settings(tmp_path, "start: none\ntemplate: {kind: few_shot, instruction: Say it.}\n")
    policy, report = warm_start([], [], deployment, config, seed=0, model=str(plain))
    loaded = load_rewriter(plain, template=TemplateChoice(kind="few_shot", instruction="Say it."))
    assert policy.policy_hash == loaded.policy_hash and report.fit is None and report.kinds == {}
    # Of a rewriter, its own template.
    loaded.save(tmp_path / "rewriter")
    again, _ = warm_start([], [], deployment, settings(tmp_path, "start: none\n"), seed=0, model=str(tmp_path / "rewriter"))
    assert again.policy_hash == loaded.policy_hash
    with pytest.raises(RewriterError, match="a prompt template of its own"):
        warm_start([], [], deployment, config, seed=0, model=str(tmp_path / "rewriter"))


def test_what_cannot_do_without_fine_tuning_is_told_at_once(plain, tmp_path, file):
    with pytest.raises(ValueError, match=r"start: none: .* has never seen the tokens of a reserved prompt template"):
        settings(tmp_path, "start: none\n").check(str(plain))
    with pytest.raises(ValueError, match="start: none needs a `model`"):
        settings(tmp_path, "start: none\n").check(None)
    with pytest.raises(ValueError, match="is for a `model` of yours, and none is named"):
        settings(tmp_path, "template: {kind: few_shot}\n").check(None)
    with pytest.raises(FileNotFoundError):
        settings(tmp_path, f"template: {{kind: jinja, file: {tmp_path}/none.jinja}}\n").check(str(plain))
    settings(tmp_path, f"start: pairs\npairs: {file}\n").check(None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start: pairs", "start: pairs needs `pairs`"),
        ("pairs: x.parquet", "pairs are not read with start: reformulations"),
        ("start: nothing", "start"),
    ],
)
def test_settings_that_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, text)


def test_a_week_that_began_under_earlier_settings_goes_on(tmp_path):
    named = {"run": "r", "documents": "d", "logs": "l", "labels": "a", "frozen": "f"}
    told = {"start": "reformulations", "template": {"kind": "reserved"}}
    before = CycleConfig.model_validate({**named, "pipeline": {"warm_start": {"epochs": 2}}})
    now = CycleConfig.model_validate({**named, "pipeline": {"warm_start": {"epochs": 2, **told}}})
    other = CycleConfig.model_validate({**named, "pipeline": {"warm_start": {"epochs": 2, "start": "none"}}})
    assert _hash_settings(before) == _hash_settings(now) != _hash_settings(other)
