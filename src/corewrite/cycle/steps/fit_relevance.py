"""Fit the relevance model on an earlier window, with and without the picture, and the judge on its own labels."""

from collections.abc import Callable
from dataclasses import dataclass

from corewrite.cycle.window import LogWindow
from corewrite.domain import Catalogue
from corewrite.relevance import FitReport, Impressions, LateInteraction, cold_start, fit

Progress = Callable[[int, int], None]
Refit = Callable[[Catalogue, Impressions, int, Progress], LateInteraction]
"""Fits the relevance model of a week: catalogue, examined impressions, seed, progress."""


@dataclass(frozen=True, eq=False)
class RelevanceFit:
    """A fitted relevance model.

    Attributes:
        model: The model.
        report: How well it predicts on held-out users.
        text_only: The same without pictures, for comparison.
    """

    model: LateInteraction
    report: FitReport
    text_only: FitReport


def refit(catalogue: Catalogue, seen: Impressions, seed: int, progress: Progress) -> LateInteraction:
    """Fit the relevance model on examined impressions, from a cold start."""
    return fit(cold_start(catalogue, seen.texts, seed=seed), catalogue, seen, seed=seed, progress=progress)[0]


def fit_relevance(
    window: LogWindow, catalogue: Catalogue, *, seed: int, progress: Progress = lambda done, total: None
) -> RelevanceFit:
    """Fit on a window's examined impressions, gate users left out.

    Raises:
        ValueError: too little to learn from.
    """
    impressions = window.impressions(catalogue)
    start = cold_start(catalogue, impressions.texts, seed=seed)
    model, report = fit(start, catalogue, impressions, seed=seed, progress=lambda done, total: progress(done, 2 * total))
    _, text_only = fit(
        start,
        catalogue,
        impressions,
        seed=seed,
        use_picture=False,
        progress=lambda done, total: progress(total + done, 2 * total),
    )
    return RelevanceFit(model, report, text_only)
