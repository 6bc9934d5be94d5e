"""The trainings of the gate benchmark: the champion's, others like it, and some on a bad reward or a poisoned log."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from corewrite.domain import Catalogue, TrainingInstance, keyed_uniform, words
from corewrite.fusion import FusionSpec, default_spec
from corewrite.relevance import LateInteraction
from corewrite.studies.gate_benchmark.config import GateBenchConfig
from corewrite.studies.incidents.models import saturating
from corewrite.studies.incidents.specs import low_floor
from corewrite.training import TrainingConfig

WARM, CHAMPION = "warm", "champion"
_BOT_VIDEOS, _BOT_CLICKS = 200, 3


@dataclass(frozen=True)
class RankerVariant:
    """What ranks and rewards: the fitted model and the packaged spec, or an exploitable one of them.

    Attributes:
        eps: Floor of the rewrite signals where it is too low.
        bias: By how much the relevance model's bias is raised, so that it saturates.
    """

    eps: float | None = None
    bias: float | None = None

    def spec(self) -> FusionSpec:
        """The fusion spec."""
        return default_spec() if self.eps is None else low_floor(default_spec(), self.eps)

    def model(self, fitted: LateInteraction) -> LateInteraction:
        """The relevance model, from the fitted one."""
        return fitted if self.bias is None else saturating(fitted, self.bias)


SOUND = RankerVariant()


@dataclass(frozen=True)
class Training:
    """A training run, by which its policies are named `<name>-<phase>`.

    Attributes:
        name: Unique.
        start: Policy that it begins from.
        seed: Of the training.
        config: Settings.
        keep: Phases after which the policy is kept.
        under: What it is rewarded by.
        bots: Share of its instances that are a bot's.
    """

    name: str
    start: str
    seed: int
    config: TrainingConfig
    keep: tuple[int, ...]
    under: RankerVariant = SOUND
    bots: float = 0.0

    def policy(self, phase: int) -> str:
        """Name of the policy after a phase."""
        return f"{self.name}-{phase:02d}"


def champion_training_name(config: GateBenchConfig) -> str:
    """Name of the champion: the warm start after all phases of the platform's own training."""
    return f"{CHAMPION}-{config.platform.pipeline.training.phases:02d}"


def build_trainings(config: GateBenchConfig, seed: int) -> dict[str, Training]:
    """All trainings on a seed's platform by name: the champion's, others like it, and bad ones that begin from it."""
    sound = config.platform.pipeline.training
    found = [Training(CHAMPION, WARM, seed, sound, tuple(range(1, sound.phases + 1)))]
    small = {"phases": max(config.honest_phases), "instances_per_phase": config.honest_instances}
    for k in range(config.honest_trainings):
        honest = sound.model_copy(update=small)
        found.append(Training(f"honest-{k}", WARM, 1_000 * (k + 1) + seed, honest, config.honest_phases))

    def bad(name: str, keep: tuple[int, ...], under: RankerVariant, bots: float = 0.0) -> None:
        settings = config.bad.model_copy(update={"phases": max(keep)})
        found.append(Training(name, champion_training_name(config), seed + 7, settings, keep, under, bots))

    weeks = tuple(range(config.growing_week, max(config.growing_phases) + 1, config.growing_week))
    for eps in config.growing_eps:
        bad(f"growing-{eps:g}", weeks, RankerVariant(eps=eps))
    for bias in config.saturating_bias:
        bad(f"saturating-{bias:g}", config.saturating_phases, RankerVariant(bias=bias))
    for share in config.poisoned_shares:
        bad(f"poisoned-{share:g}", config.poisoned_phases, SOUND, share)
    return {t.name: t for t in found}


def poisoned(instances: Sequence[TrainingInstance], catalogue: Catalogue, share: float, seed: int) -> list[TrainingInstance]:
    """The instances and, as `share` of all, a bot's: whatever it searches for, it watches videos of one theme, no others.

    The theme is the title word whose number of videos is nearest to 200.

    Args:
        instances: Of people.
        catalogue: The documents.
        share: Below 1.
        seed: Which searches the bot repeats, and what it watches.
    """
    holding: dict[str, list[int]] = {}
    for row, title in enumerate(catalogue.titles):
        for word in set(words(title)):
            holding.setdefault(word, []).append(row)
    theme = min(holding, key=lambda word: (abs(len(holding[word]) - _BOT_VIDEOS), word))
    own = [catalogue.ids[row] for row in holding[theme]]
    n = round(share / (1 - share) * len(instances))
    u = keyed_uniform(seed, 301, np.arange(n)[:, None], np.arange(1 + _BOT_CLICKS)[None, :])
    bots = []
    for i, (first, *clicks) in enumerate(u.tolist()):
        like = instances[int(first * len(instances))]
        watched = tuple(dict.fromkeys(own[int(c * len(own))] for c in clicks))
        shown = tuple(d for d in (*like.positives, *like.negatives) if d not in watched)
        bots.append(
            replace(
                like,
                instance_id=f"bot-{i}",
                user_id="bot",
                positives=watched,
                gains=(1.0,) * len(watched),
                negatives=shown,
                weights=(1.0,) * len(shown),
            )
        )
    return [*instances, *bots]
