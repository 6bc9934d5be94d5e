"""Mitigations: changes to the next training after a check failed."""

from types import MappingProxyType
from typing import Literal

Mitigation = Literal["stronger_kl", "length_control", "wider_pair_margin", "higher_sft_weight", "lower_rate", "none"]

_EARLIER = MappingProxyType(
    {"hold_closer": "stronger_kl", "keep_query": "wider_pair_margin", "more_imitation": "higher_sft_weight"}
)


def current_mitigation(name: str) -> str:
    """The name of a mitigation today, for one that an earlier version wrote down; others stay as they are.

    Args:
        name: In a journal, a record or a check of another package.
    """
    return _EARLIER.get(name, name)
