"""Filling in an emitted body."""

import pytest

from corewrite.fusion.compilers import fill
from corewrite.fusion.compilers.placeholders import placeholder_names

BODY = {"a": "${x.y}", "b": ["${list}", 1, {"c": "${x.y}"}], "d": "no ${x.y} inside a text", "e": None}


def test_whole_strings_are_replaced_and_lists_spliced():
    assert placeholder_names(BODY) == ("list", "x.y")
    assert fill(BODY, {"x.y": {"k": 2}, "list": [7, 8]}) == {
        "a": {"k": 2}, "b": [7, 8, 1, {"c": {"k": 2}}], "d": "no ${x.y} inside a text", "e": None,
    }  # fmt: skip
    assert fill(BODY, {"x.y": 0, "list": []})["b"] == [1, {"c": 0}]


def test_what_is_missing_is_named():
    with pytest.raises(KeyError, match=r"needs 'list'"):
        fill(BODY, {"x.y": 1})
    with pytest.raises(ValueError, match="must be a list, this is a int"):
        fill(BODY, {"x.y": 1, "list": 3})
