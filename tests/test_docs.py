"""The documentation: every link leads somewhere, every page is in the menu, the rooms are those of the code, and it builds."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from corewrite import gate

sys.path.insert(0, str(Path(__file__).parent))
from docs_blocks import PAGES, ROOT

DOCS = ROOT / "docs"


def prose(page):
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text("utf-8"))


def anchors(page):
    """As GitHub and the site make them of headings; of a word that stands twice the second with a number."""
    found = []
    for title in re.findall(r"(?m)^#+ (.+)$", prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())
        found.append(slug if slug not in found else f"{slug}_{found.count(slug)}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: no such file"
        inside = page.is_relative_to(DOCS)
        assert not inside or file.is_relative_to(DOCS), f"{target}: not a page of the site"
        assert not anchor or anchor in anchors(file), f"{target}: there are {anchors(file)}"


def test_pages_named_in_the_code_exist():
    folders = ("src", "tests", "benchmarks", "tools", "examples")
    files = [f for folder in folders for f in (ROOT / folder).rglob("*.py")] + [ROOT / "CHANGELOG.md"]
    named = {(f.name, name) for f in files for name in re.findall(r"(?<![\w/])docs/[\w/-]+\.md", f.read_text("utf-8"))}
    assert len(named) > 10
    assert [x for x in named if not (ROOT / x[1]).is_file()] == []


def test_every_page_is_in_the_menu():
    text = (ROOT / "mkdocs.yml").read_text("utf-8")

    def pages(part):
        return (
            [part]
            if isinstance(part, str)
            else [p for x in (part.values() if isinstance(part, dict) else part) for p in pages(x)]
        )

    assert sorted(pages(yaml.safe_load(text)["nav"])) == sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md"))


def test_the_rooms_and_layers_of_the_page_are_those_of_the_code():
    page = (DOCS / "concepts" / "architecture.md").read_text("utf-8")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(c for c in contracts if c["type"] == "layers")["layers"]
    assert "```text\n" + "\n".join(layers) + "\n```" in page
    rooms = {room for layer in layers for room in layer.split(" | ")}
    assert rooms == {f.parent.name for f in (ROOT / "src" / "corewrite").glob("*/__init__.py")}
    for room in rooms:
        said = ast.get_docstring(ast.parse((ROOT / "src" / "corewrite" / room / "__init__.py").read_text("utf-8")))
        assert f"| `{room}` | {said.splitlines()[0]} |" in page


def test_the_python_page_names_modules_that_exist():
    names = re.findall(r"(?m)^::: (\S+)$", (DOCS / "reference" / "python.md").read_text("utf-8"))
    assert "corewrite.training.losses" in names and gate.__name__ in names
    assert all(importlib.util.find_spec(name) for name in names)


def test_words_are_defined_once_and_in_order():
    words = re.findall(r"(?m)^\| \*\*(.+?)\*\* \|", (DOCS / "concepts" / "glossary.md").read_text("utf-8"))
    assert len(words) > 80
    assert words == sorted(words, key=str.casefold) and len(set(words)) == len(words)


@pytest.mark.skipif(
    shutil.which("mkdocs", path=str(Path(sys.executable).parent)) is None, reason="the extra `docs` is not installed"
)
def test_the_site_builds_without_a_warning(tmp_path):
    mkdocs = Path(sys.executable).parent / "mkdocs"
    command = [mkdocs, "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        hosts = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:)?//", page.read_text("utf-8"))
        assert not hosts, f"{page.name} asks another host"
