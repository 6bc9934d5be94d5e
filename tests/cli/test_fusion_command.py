"""`corewrite fusion compile` as a user meets it."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.fusion import default_spec, parse_spec
from corewrite.fusion.compilers import ENGINES, compile_spec

sys.path.insert(0, str(Path(__file__).parents[1]))
from installed import install

SPEC = """\
rawrank: {original: [{signal: dense, eps: 0.01}]}
finerank:
  original: [{signal: rel, eps: 0.01}]
  rewrite: [{signal: rel, eps: 0.1}]
"""


def call(*args):
    return CliRunner().invoke(
        app, ["fusion", "compile", *map(str, args)], catch_exceptions=False, env={"COLUMNS": "160", "TERM": "dumb"}
    )


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "fusion.yaml"
    path.write_text(SPEC, "utf-8")
    return path


def test_help_names_every_engine_and_an_unknown_one_is_a_usage_error():
    result = call("--help")
    assert all(engine in result.output for engine in ENGINES)
    result = call("--to", "solr")
    assert result.exit_code == 2 and "vespa, opensearch, elasticsearch, qdrant" in " ".join(result.output.split())


def test_a_package_compiles_to_an_engine_of_its_own(spec_file, tmp_path, monkeypatch):
    source = "def compiled(spec, features):\n    return {'hash': spec.spec_hash, 'features': dict(features)}\n"
    install(tmp_path / "site", monkeypatch, {"corewrite.compilers": {"solr": "own_solr:compiled"}}, own_solr=source)
    found = json.loads(call(spec_file, "--to", "solr", "--feature", "query.rel=r").stdout)
    assert found == {"hash": parse_spec(SPEC).spec_hash, "features": {"query.rel": "r"}}
    assert "qdrant, solr" in " ".join(call("--to", "lucene").output.split())


def test_a_package_cannot_take_an_engine_of_ours(spec_file, tmp_path, monkeypatch):
    install(tmp_path / "site", monkeypatch, {"corewrite.compilers": {"vespa": "own_vespa:compiled"}})
    result = call(spec_file, "--to", "vespa")
    assert result.exit_code == 1 and "'vespa' in 'corewrite.compilers'" in result.output and "rename it" in result.output


@pytest.mark.parametrize("engine", ENGINES)
def test_standard_output_is_what_the_library_gives(spec_file, engine):
    want = compile_spec(parse_spec(SPEC), engine)
    plain = call(spec_file, "--to", engine).stdout
    assert (plain if engine == "vespa" else json.loads(plain)) == want
    wrapped = json.loads(call(spec_file, "--to", engine, "--json").stdout)
    assert wrapped == {"engine": engine, "spec_hash": parse_spec(SPEC).spec_hash, "out": None, "emitted": want}


def test_the_packaged_spec_is_the_default():
    assert call("--to", "vespa").stdout == compile_spec(default_spec(), "vespa")


def test_out_and_feature(spec_file, tmp_path):
    out = tmp_path / "schemas" / "video" / "corewrite.profile"
    result = call(spec_file, "--to", "vespa", "--out", out, "--feature", "query.rel=closeness(field, v)")
    assert result.exit_code == 0 and "rank-profile" not in result.stdout
    assert out.read_text("utf-8") == compile_spec(parse_spec(SPEC), "vespa", {"query.rel": "closeness(field, v)"})
    # The first = parts; the rest is the engine's.
    assert "if(a == 1, 2, 3)" in call(spec_file, "--to", "vespa", "--feature", "query.rel=if(a == 1, 2, 3)").stdout


def test_errors_name_file_line_and_fix(tmp_path, spec_file):
    bad = tmp_path / "bad.yaml"
    bad.write_text(SPEC.replace("eps: 0.1}", "eps: 0.1, lo: 2}"), "utf-8")
    result = call(bad, "--to", "vespa")
    assert result.exit_code == 1 and "bad.yaml:4:" in result.output and "lo 2.0 must be at most 1" in result.output
    result = call(tmp_path / "none.yaml", "--to", "vespa")
    assert result.exit_code == 1 and "none.yaml: cannot read the fusion spec" in result.output
    result = call(spec_file, "--to", "qdrant", "--feature", "query.other=x")
    assert result.exit_code == 1 and "no signal 'query.other'" in result.output
    for wrong in (["--to", "solr"], ["--to", "vespa", "--feature", "query.rel"], []):
        assert call(spec_file, *wrong).exit_code == 2
