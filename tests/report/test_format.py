import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.report.format import SYSTEMS, change, duration, number, ordered, percent, significant


def test_numbers() -> None:
    assert number(1234567.891, 1) == "1,234,567.9"
    assert number(0.5, 2, signed=True) == "+0.50" and number(-0.5, 2) == "-0.50"
    assert number(-0.0001, 2) == "0.00" and number(-0.0001, 2, signed=True) == "+0.00"
    assert percent(0.1234) == "12.3 %" and percent(-1, 0, signed=True) == "-100 %"
    assert significant(0.000123456, 2) == "0.00012" and significant(12, 3, signed=True) == "+12"
    assert [duration(s) for s in (0.04, 59.9, 200, 3899)] == ["0.0 s", "59.9 s", "3 min 20 s", "1 h 4 min"]


@pytest.mark.parametrize("show", [number, percent, significant, duration])
def test_missing_and_wrong_numbers(show) -> None:
    assert {show(value) for value in (None, math.nan, math.inf, -math.inf)} == {"–"}
    for wrong in (True, "1", [1]):
        with pytest.raises(TypeError, match="is not a number"):
            show(wrong)


@given(st.floats(-1e9, 1e9), st.integers(0, 6))
def test_number_reads_back(value: float, digits: int) -> None:
    assert float(number(value, digits, signed=True).replace(",", "")) == pytest.approx(
        value, abs=0.500001 * 10**-digits, rel=1e-12
    )


def test_change() -> None:
    assert change(0.6, 0.5) == pytest.approx(0.2)
    assert change(None, 0.5) is change(0.6, None) is change(0.6, 0) is None


def test_known_systems_come_first_and_others_stay() -> None:
    found = ordered(["my_rewriter", "oracle", "original"], SYSTEMS)
    assert list(found.items()) == [("original", "original only"), ("oracle", "oracle rewrite"), ("my_rewriter", "my rewriter")]
