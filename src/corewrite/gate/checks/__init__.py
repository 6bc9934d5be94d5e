"""The checks, each a question answered by a difference in which higher is better."""

from corewrite.gate.check import CHECKS

# Importing a module registers its checks; the report shows them in this order.
from corewrite.gate.checks import quality, length, texts, diversity, movement, safety  # isort: skip

__all__ = ["CHECKS", "diversity", "length", "movement", "quality", "safety", "texts"]
