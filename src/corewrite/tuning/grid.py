"""The stages that are tried: a grid of clips, exponents and eps around the one to be tuned."""

import itertools
from dataclasses import dataclass

import numpy as np

from corewrite.fusion.spec import RewriteSignal, StageSpec


@dataclass(frozen=True)
class Grid:
    """Values tried for every rewrite signal.

    Attributes:
        lo: Lowest factors before the exponent.
        hi: Highest factors before the exponent.
        share: Exponents as shares of the original's exponent (of 1 for a signal that is not among the originals).
        eps: Multiples of the eps of the stage tuned.
    """

    lo: tuple[float, ...] = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
    hi: tuple[float, ...] = (1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0)
    share: tuple[float, ...] = (0.1, 0.2, 0.35, 0.5)
    eps: tuple[float, ...] = (1 / 3, 1.0, 3.0, 10.0)


def build_stages(stage: StageSpec, grid: Grid, limit: int, seed: int) -> list[StageSpec]:
    """Stages to try: no rewriter at all, the stage as it is, and the grid.

    With one rewrite signal the grid is tried whole. With several, where their product is larger than `limit`, it is sampled
    (random search, Bergstra & Bengio 2012), each signal left out in some of the draws.

    Raises:
        ValueError: the stage has no rewrite signal, or the grid a value that no spec allows.
    """
    if not stage.rewrite:
        raise ValueError("the stage has no rewrite signal to tune: name one under `rewrite`")
    exponents = {s.signal: s.exponent for s in stage.original}
    choices = [_signal_settings(j, exponents.get(j.signal, 1.0), grid) for j in stage.rewrite]
    neutral = tuple(c[0] for c in choices)
    if len(choices) == 1 or np.prod([float(len(c)) for c in choices]) <= limit:
        picks = list(itertools.product(*choices))
    else:
        rng = np.random.default_rng(seed)
        out = rng.random((limit, len(choices))) < 1 / (len(choices) + 1)
        place = np.stack([np.where(out[:, k], 0, rng.integers(1, len(c), limit)) for k, c in enumerate(choices)], 1)
        picks = [tuple(c[p] for c, p in zip(choices, row, strict=True)) for row in place]
    return [StageSpec(original=stage.original, rewrite=r) for r in dict.fromkeys([neutral, stage.rewrite, *picks])]


def _signal_settings(j: RewriteSignal, a: float, grid: Grid) -> list[RewriteSignal]:
    """Neutral first, then the grid."""
    values = itertools.product(grid.lo, grid.hi, grid.share, grid.eps)
    # model_validate and not model_copy: every setting passes the checks of a spec.
    made = [
        RewriteSignal.model_validate(
            j.model_dump() | {"lo": lo, "hi": hi, "exponent": share * a, "eps": float(f"{scale * j.eps:.4g}")}
        )
        for lo, hi, share, scale in values
        if lo < hi
    ]
    return [RewriteSignal.model_validate(j.model_dump() | {"exponent": 0.0}), *made]
