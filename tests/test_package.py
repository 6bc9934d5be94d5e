"""The package as a program sees it: its public names, which cost nothing until they are used."""

import ast
import inspect
import json
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

import corewrite
from corewrite.cli.main import app
from corewrite.domain.extras import EXTRAS, MissingExtraError, from_extra
from corewrite.report.vega import render_svg

ROOT = Path(__file__).parents[1]

NAMES = corewrite.__all__


def python(code: str) -> str:
    """What a fresh process prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_it_loads_nothing_but_the_standard_library():
    found = python(
        "import json, sys; before = set(sys.modules); import corewrite; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    loaded = json.loads(found)
    assert {name for name in loaded if name.startswith("corewrite")} == {"corewrite", "corewrite.version"}
    assert {name.partition(".")[0] for name in loaded} - {"corewrite"} <= sys.stdlib_module_names


def test_the_version_is_the_installed_one():
    assert corewrite.__version__ == version("corewrite")


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_the_documented_thing_of_its_home(name):
    found = getattr(corewrite, name)
    assert found is getattr(import_module(corewrite._HOMES[name]), name)
    assert found.__module__.startswith("corewrite.") and inspect.getdoc(found)
    assert name in dir(corewrite)


def test_a_name_is_imported_when_it_is_used_and_not_before():
    loaded = python(
        "import sys, corewrite; corewrite.load_spec; print('corewrite.fusion' in sys.modules, 'torch' in sys.modules)"
    )
    assert loaded.split() == ["True", "False"]


def test_type_checkers_see_the_same_names():
    tree = ast.parse(inspect.getsource(corewrite))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        seen |= {alias.asname: node.module for alias in node.names if alias.asname == alias.name}
    assert seen == corewrite._HOMES


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'corewrite' has no attribute 'launch'"):
        corewrite.launch  # noqa: B018


def test_every_extra_names_the_modules_of_its_distributions():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert EXTRAS.keys() == extras.keys() - {"all", "dev", "docs"}
    brought = packages_distributions()
    for extra, modules in EXTRAS.items():
        asked = {canonicalize_name(Requirement(line).name) for line in extras[extra]}
        assert {canonicalize_name(name) for module in modules for name in brought[module]} == asked, extra


def test_all_is_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert {name for line in extras["all"] for name in Requirement(line).extras} == EXTRAS.keys()


BLOCKED = """
import sys
from importlib import import_module
from pkgutil import walk_packages

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import corewrite
"""


def without(*extras: str) -> str:
    """Code that begins a process in which the packages of these extras are not installed."""
    # transformers needs httpx itself.
    return BLOCKED.format(names={name for extra in extras for name in EXTRAS[extra]} - {"httpx"})


def test_without_any_extra_all_but_the_server_and_its_clients_can_be_imported():
    failed = python(
        without(*EXTRAS)
        + """
def found(package):
    for module in walk_packages(package.__path__, "corewrite."):
        try:
            import_module(module.name)
        except ModuleNotFoundError:
            print(module.name)

found(corewrite)
"""
    ).split()
    may = (
        "corewrite.serving.",
        "corewrite.studies.production.",
        "corewrite.remote.http",
        "corewrite.remote.redis",
        "corewrite.remote.opensearch",
    )
    assert failed and not [name for name in failed if not name.startswith(may)]


def test_a_server_starts_without_what_trains_and_reports():
    python(
        without("train", "report")
        + """
import corewrite.serving.app, corewrite.serving.worker, corewrite.cli.serve
from corewrite.deployment.documents import open_documents
from corewrite.report.progress import ProgressSteps
"""
    )


@pytest.mark.parametrize(
    ("call", "missing", "extras"),
    [
        (["demo", "--miniature"], "sklearn, threadpoolctl, tea_tasting, vl_convert", "train,report"),
        (["gate", "bench", "--miniature"], "sklearn, threadpoolctl", "train"),
        (["experiment", "plan", ".", "--effect", "0.02"], "tea_tasting, vl_convert", "report"),
        (["serve"], "fastapi, prometheus_client, redis, uvicorn", "serve"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_that_needs_more_says_so_before_it_begins(tmp_path, monkeypatch, call, missing, extras):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("corewrite.domain.extras.find_spec", lambda name: None)
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 1 and f"not installed: {missing}: pip install 'corewrite[{extras}]'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_package_is_named_where_it_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(MissingExtraError, match=r"charts are drawn by vl-convert: pip install 'corewrite\[report\]'"):
        render_svg({})
    with (
        pytest.raises(MissingExtraError, match=r"no such package: pip install 'corewrite\[seal\]'"),
        from_extra("seal", "no such package"),
    ):
        import_module("corewrite_no_such_package")
