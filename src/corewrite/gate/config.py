"""What the gate is asked to hold: margins, resamples, sizes."""

from typing import Annotated

from pydantic import Field

from corewrite.domain import Settings

Margin = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Margins(Settings):
    """How much worse than its baseline a candidate may be, by check, in the absolute units of each metric.

    These are stated business limits: what a search team would accept to lose for a gain in reward.
    Calibration from retrains of the champion with other seeds comes later and can only make them narrower.
    The reward has no margin: it must rise.
    """

    judge_ndcg: Margin = 0.005
    """Mean judge nDCG@10 against the champion."""
    judge_ndcg_vs_no_rewriter: Margin = 0.005
    """Mean judge nDCG@10 against no rewriter."""
    worst_slice: Margin = 0.02
    """Mean judge nDCG@10 against the champion on the worst slice (smaller, so noisier, than the whole)."""
    length: Margin = 0.75
    """Mean words of the served text."""
    copying: Margin = 0.10
    """Mean share of words that come only from the context."""
    distinct_2: Margin = 0.10
    """Distinct word bigrams over all word bigrams."""
    commonest_rewrite: Margin = 0.02
    """Share of the commonest rewrite."""
    harm_rate: Margin = 0.03
    """Share of queries harmed."""
    inflation: Margin = 0.2
    """Gain in reward minus that in judge nDCG, standard deviations (a report, it decides nothing)."""


class GateConfig(Settings):
    """Settings of the gate."""

    margins: Margins = Margins()
    """Business limits; not yet calibrated from retrains."""
    harm_threshold: float = Field(default=0.05, gt=0, lt=1)
    """tau: judge nDCG@10 lost against no rewriter from which on a query counts as harmed."""
    resamples: int = Field(default=2000, ge=50)
    """Poisson resamples of users, for means."""
    subsamples: int = Field(default=400, ge=50)
    """Half-samples of users, for set metrics: 400 give the standard error to within 4 %."""
    minimum_users: int = Field(default=40, ge=20)
    """Users below which the gate holds, and a slice is left out."""
    seed: int = Field(default=0, ge=0)
    """Of the resamples."""
