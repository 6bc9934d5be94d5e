"""Purposes of random draws: the last part of a draw's key, so that no two decisions share a number."""

from typing import Final

SESSION: Final = 0
TYPE: Final = 1
SCAN: Final = 2
CLICK: Final = 3
WATCH: Final = 4
NEXT: Final = 5
CONTENT: Final = 7
