"""The platform's stylised facts stay in the ranges of real logs (docs/evidence/realism.md)."""

import json

import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app


@pytest.fixture(scope="module")
def facts():
    result = CliRunner().invoke(app, ["simulate", "--facts", "--json", "--sessions", "14000"], catch_exceptions=False)
    assert result.exit_code == 0
    return {f["name"]: f for f in json.loads(result.stdout)}


NAMES = [
    "query length, words", "queries a session", "single-query sessions", "Zipf slope of queries", "volume unseen last week",
    "misspelt", "context needed", "context misleading or irrelevant", "clear queries", "examination of rank 10 over rank 1",
    "short clicks", "exploratory searches", "nDCG@10 as displayed", "searches without satisfaction",
    "unsatisfied change-query rate", "oracle rewrite's fused gain",
]  # fmt: skip


def test_every_fact_is_there(facts):
    assert sorted(facts) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_fact_is_in_range(facts, name):
    fact = facts[name]
    assert fact["low"] <= fact["value"] <= fact["high"]
