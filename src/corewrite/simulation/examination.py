"""How users examine a list of results: a cascade click model with noise (Craswell et al. 2008, WSDM)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corewrite.simulation import purposes
from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.intents import Intents, grades
from corewrite.simulation.world import World

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_SPREAD = 0.8
"""Width of the uniform noise of the share of a video that is watched."""
_CONTENT_FROM = 0.35
"""Share watched from which on a video of grade 2 or 3 pleases."""


@dataclass(frozen=True, eq=False)
class Examined:
    """What users did with their lists.

    Attributes:
        click: Whether each document was clicked, bool [searches, displayed].
        watch: How long it was watched, seconds, float64 [searches, displayed].
        delay: When it was clicked, seconds after the list was shown, float64 [searches, displayed].
        examined: Truth: how far down the user looked, int64 [searches].
        felt: Truth: whether the user was content, bool [searches].
        scent: Truth: whether something that was looked at met a part of the intent, bool [searches].
    """

    click: BoolArray
    watch: FloatArray
    delay: FloatArray
    examined: IntArray
    felt: BoolArray
    scent: BoolArray


def click_probability(world: World, grade: IntArray, rows: IntArray) -> FloatArray:
    """Chance that a result that is looked at is clicked, float64 of the shape of `grade`; 0 where `rows` pads with -1."""
    safe = np.maximum(rows, 0)
    appeal = np.array([0.08, 0.30, 0.50, 0.62])[grade] * (0.75 + 0.5 * world.video_quality[safe])
    return np.asarray(np.clip(appeal + 0.20 * world.video_clickbait[safe], 0, 0.95) * (rows >= 0))


def content_probability(world: World, grade: IntArray, rows: IntArray) -> FloatArray:
    """Chance that a result that is clicked pleases, float64 of the shape of `grade`."""
    short = (_CONTENT_FROM - _mean_watched(grade, world.video_quality[np.maximum(rows, 0)])) / _SPREAD + 0.5
    return np.where(grade >= 2, 1 - np.clip(short, 0, 1), 0.0)


def _mean_watched(grade: IntArray, quality: FloatArray) -> FloatArray:
    return np.asarray(np.array([0.13, 0.26, 0.57, 0.66])[grade] * (0.6 + 0.8 * quality))


def examine(
    world: World,
    traffic: TrafficConfig,
    intents: Intents,
    rows: IntArray,
    patience: FloatArray,
    draw: Callable[[int, int], FloatArray],
) -> Examined:
    """Scan each list from the top: look, perhaps click, watch, perhaps stop (a cascade model with noise).

    Clicks follow what a result *seems* to be: clickbait earns clicks and short watches.
    """
    n, width = rows.shape
    grade = grades(world, intents, rows)
    safe = np.maximum(rows, 0)
    quality = world.video_quality[safe]
    appeal = click_probability(world, grade, rows)
    go_on = np.clip(traffic.scan_on + 0.10 * (patience - 0.5), 0.05, 0.97)
    u_scan, u_click, u_watch, u_content = (
        draw(p, width) for p in (purposes.SCAN, purposes.CLICK, purposes.WATCH, purposes.CONTENT)
    )
    ratio = np.clip(_mean_watched(grade, quality) + _SPREAD * (u_watch - 0.5), 0.03, 1.0)
    seconds = world.catalogue.seconds[safe]
    content = (grade >= 2) & (ratio > _CONTENT_FROM)

    looking = np.ones(n, np.bool_)
    felt = np.zeros(n, np.bool_)
    clock = np.zeros(n)
    click, watch, delay = np.zeros((n, width), np.bool_), np.zeros((n, width)), np.zeros((n, width))
    examined = np.zeros(n, np.int64)
    for k in range(width):
        examined += looking
        clock += 1.5 * looking
        clicked = looking & (u_click[:, k] < appeal[:, k])
        click[:, k], delay[:, k] = clicked, np.where(clicked, clock, 0.0)
        watch[:, k] = np.where(clicked, np.round(ratio[:, k] * seconds[:, k], 1), 0.0)
        clock += watch[:, k]
        pleased = clicked & content[:, k]
        felt |= pleased
        stop = np.where(pleased, u_content[:, k] < traffic.stop_when_satisfied, u_scan[:, k] >= go_on)
        looking &= ~stop
    scent = np.asarray(((grade > 0) & (np.arange(width) < examined[:, None])).any(1))
    return Examined(click, watch, delay, examined, felt, scent)
