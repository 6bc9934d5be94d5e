"""Which locale a new policy takes for granted."""

import pytest

from corewrite.cycle.steps.warm_start import home_locale
from corewrite.domain import Context, Query


def queries(*locales: str) -> list[Query]:
    return [Query("cat", Context(locale=locale)) for locale in locales]


@pytest.mark.parametrize(
    ("locales", "home"),
    [
        (["en_US", "en-us", "EN-US", "de", "fr"], "en-us"),
        (["en", "en", "de", "de"], ""),
        (["en", "de", "fr"], ""),
        (["", "", "de"], ""),
        (["de", "de", ""], "de"),
        ([], ""),
    ],
)
def test_it_is_that_of_more_than_half_of_the_queries(locales, home):
    assert home_locale(queries(*locales)) == home
