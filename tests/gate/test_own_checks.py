"""Checks of packages that are not ours: what is refused, by name."""

import sys
from pathlib import Path

import pytest

from corewrite.gate import CHECKS, Margins, check

sys.path.insert(0, str(Path(__file__).parents[1]))
from installed import install

SOURCE = """\
from corewrite.gate.check import TextCheck


class Own(TextCheck):
    name = "{name}"
    question = "?"
    default_margin = 0.1

    def of(self, served, evaluation):
        return served.lengths
"""


@pytest.fixture(autouse=True)
def as_if_not_read_yet(monkeypatch):
    monkeypatch.setattr(check._CHECKS, "registered", dict(check._CHECKS.registered))
    monkeypatch.setattr(check._CHECKS, "_complete", False)


@pytest.mark.parametrize(
    ("point", "value", "name", "message"),
    [
        ("length", "own_a:Own", "length", "two checks are called 'length'"),
        ("own", "own_b:Own", "other", "names a check called 'other'"),
        ("own", "own_c:SOURCE", "own", "cannot be imported"),
        ("own", "own_d:TextCheck.__name__", "own", "must name a subclass"),
        ("own", "own_missing:Own", "own", "'own_missing'"),
    ],
)
def test_what_is_no_check_or_has_a_name_that_is_taken_is_refused(tmp_path, monkeypatch, point, value, name, message):
    module = value.partition(":")[0]
    modules = {} if module == "own_missing" else {module: SOURCE.format(name=name)}
    install(tmp_path / "site", monkeypatch, {"corewrite.checks": {point: value}}, **modules)
    for _ in range(2):  # not only the first time
        with pytest.raises(ValueError, match=message):
            Margins()


def test_one_that_registers_itself_is_asked_once(tmp_path, monkeypatch):
    source = (
        SOURCE.format(name="own_e")
        .replace("import TextCheck", "import TextCheck, register")
        .replace("\nclass", "\n@register\nclass")
    )
    install(tmp_path / "site", monkeypatch, {"corewrite.checks": {"own_e": "own_e:Own"}}, own_e=source)
    assert list(CHECKS).count("own_e") == 1 and Margins(own_e=0.3).of("own_e") == 0.3
    with pytest.raises(ValueError, match="no check with a margin is called own_f"):
        Margins(own_f=0.3)


def test_two_packages_with_one_name_are_refused(tmp_path, monkeypatch):
    for package in ("one", "two"):
        install(tmp_path / package, monkeypatch, {"corewrite.checks": {"own_g": f"{package}:Own"}}, package)
    with pytest.raises(ValueError, match=r"'own_g' in 'corewrite.checks' .* has a name that is taken"):
        len(CHECKS)


def test_a_kind_of_an_earlier_name_is_taken_with_a_warning(tmp_path, monkeypatch):
    source = SOURCE.format(name="own_k").replace('question = "?"', 'question = "?"\n    kind = "after holds"')
    install(tmp_path / "site", monkeypatch, {"corewrite.checks": {"own_k": "own_k:Own"}}, own_k=source)
    with pytest.warns(FutureWarning, match="'after holds' is 'not lower' now"):
        assert CHECKS["own_k"].kind == "not lower"


def test_a_mitigation_of_an_earlier_name_is_taken_with_a_warning(tmp_path, monkeypatch):
    source = SOURCE.format(name="own_h").replace('question = "?"', 'question = "?"\n    mitigation = "keep_query"')
    install(tmp_path / "site", monkeypatch, {"corewrite.checks": {"own_h": "own_h:Own"}}, own_h=source)
    with pytest.warns(FutureWarning, match="'keep_query' is 'wider_pair_margin' now"):
        assert CHECKS["own_h"].mitigation == "wider_pair_margin"
