"""New versions of a ranker that must not get into production."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch

from .network import CrossEncoder
from .ranker import ForeignRanker

BREAKAGES = ("repeats", "pictures")
"""`repeats`: a word said twice counts twice, so that repetition pays: the probe of the relevance model finds it.
`pictures`: words were given one another's looks: no adversarial text pays, but the lists get worse."""


def break_ranker(ranker: ForeignRanker, how: str, *, seed: int = 0) -> ForeignRanker:
    """A copy of `ranker` with a fault.

    Args:
        ranker: Stays as it is.
        how: One of `BREAKAGES`.
        seed: Of what is shuffled.

    Raises:
        ValueError: `how` is none of them.
    """
    if how not in BREAKAGES:
        raise ValueError(f"there is no breakage {how!r}: choose one of {', '.join(BREAKAGES)}")
    config = replace(ranker.config, count_repeats=how == "repeats")
    network = CrossEncoder(config)
    network.load_state_dict(deepcopy(ranker.network.state_dict()))
    if how == "pictures":
        order = np.random.default_rng([seed, 63]).permutation(config.vocabulary)
        with torch.no_grad():
            network.looks.weight.copy_(network.looks.weight[torch.from_numpy(order)])
    return ForeignRanker(network.eval(), ranker.tokenizer)
