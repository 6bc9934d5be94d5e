"""Settings of semi-online MPO."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field

from corewrite.domain import Settings

Precision = Literal["float32", "bfloat16", "auto"]

FIRST_NAMES: Mapping[str, str] = {
    "max_grad_norm": "clip",
    "num_generations": "samples",
    "sync_ref_model": "refresh_reference",
}
"""The names that settings had when they were first written to disk and hashed; they are still read."""


def first_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training as they are hashed: under the names of `FIRST_NAMES`, so that runs of earlier versions go on."""
    return {FIRST_NAMES.get(name, name): value for name, value in settings.items()}


def present_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that an earlier version wrote, under the names they have today."""
    present = {first: name for name, first in FIRST_NAMES.items()}
    return {present.get(name, name): value for name, value in settings.items()}


def _renamed(name: str) -> AliasChoices:
    return AliasChoices(name, FIRST_NAMES[name])


class ScoringConfig(Settings):
    """How a phase's rewrites are scored."""

    batch: int = Field(default=4_096, ge=1)
    """Rewrites of one call of the reward, in sorted order: a score then never depends on the order of drawing."""
    workers: int = Field(default=1, ge=1, le=256)
    """Calls at the same time; more than one helps a reward that waits for a server, and must be safe for it."""
    retries: int = Field(default=2, ge=0)
    """Further tries of a call that failed for a passing reason, after 1, 2, 4 ... seconds."""
    deadline_seconds: float | None = Field(default=None, gt=0)
    """Time for all calls of a phase. Instances not scored by then are left out of it, and the record says so."""


class LoraSettings(Settings):
    """A low-rank adapter (arXiv 2106.09685) on the model's linear layers."""

    rank: int = Field(default=16, ge=1)
    """Rank."""
    alpha: int = Field(default=32, gt=0)
    """Scale, over rank."""
    targets: tuple[str, ...] = ()
    """Names of the layers that get one; empty: all linear layers but the LM head."""


class TrainingConfig(Settings):
    """One training run; the defaults suit rewrites of a few tokens by a small decoder."""

    FORMER_DEFAULTS: ClassVar[Mapping[str, Any]] = {"precision": "float32"}

    phases: int = Field(default=4, ge=1)
    """Phases at most: in each, weights are synced to the sampler once."""
    patience: int = Field(default=2, ge=0)
    """Training stops early after a phase where the mean log R of the samples over this many phases is not above that over as
    many before: what is learnt from there on is the reward's mistakes. 0: never."""
    instances_per_phase: int = Field(default=3_000, ge=1)
    """Instances drawn for a phase."""
    num_generations: int = Field(default=12, ge=1, validation_alias=_renamed("num_generations"))
    """N: rewrites sampled per instance; the identity is added as candidate N+1."""
    k: int = Field(default=1, ge=1)
    """Pairs per instance at most: the i-th best with the i-th worst."""
    minimum_gap: float = Field(default=0.15, ge=0)
    """g_min: pairs closer than this in log R are dropped, nats: near-ties of one user's clicks are noise."""
    beta: float = Field(default=0.2, gt=0)
    """Strength of the reference."""
    weight_preference: float = Field(default=0.8, ge=0)
    """w_p."""
    weight_quality: float = Field(default=0.2, ge=0)
    """w_q."""
    weight_generation: float = Field(default=0.1, ge=0)
    """w_g; 1 as published for long answers would make rewrites of few tokens mostly imitation."""
    running_delta: bool = True
    """Reward shift: the running mean of implicit rewards, or 0."""
    length_normalised: bool = False
    """Take implicit rewards per token, for rewrites of very different lengths."""
    learning_rate: float = Field(default=4e-4, gt=0)
    """Of Adam in the first phase, after a warm-up of ten steps; falling linearly from phase to phase."""
    adam_epsilon: float = Field(default=1e-4, gt=0)
    """Large, as arXiv 2506.21495 found stable."""
    max_grad_norm: float = Field(default=1.0, gt=0, validation_alias=_renamed("max_grad_norm"))
    """Norm to which a step's gradient is clipped."""
    pairs_per_step: int = Field(default=128, ge=1)
    """Pairs of one optimizer step."""
    tokens_per_micro_batch: int = Field(default=8_192, ge=64)
    """Padded tokens of one forward pass at most; memory only, results do not depend on it beyond rounding."""
    max_new_tokens: int = Field(default=14, ge=2, le=64)
    """Length limit of a sampled rewrite, tokens."""
    sync_ref_model: bool = Field(default=True, validation_alias=_renamed("sync_ref_model"))
    """Make the synced policy the reference at the start of every phase rather than keep the first: see the ablation in docs."""
    identity: bool = True
    """Add the query itself as candidate N+1: how the policy learns when not to rewrite."""
    precision: Precision = "auto"
    """Of the gradient pass and of the reference's; the weights that are stepped and the optimizer stay in float32. auto:
    bfloat16 on a GPU."""
    sampler_precision: Precision = "auto"
    """Of the in-process sampler; auto: bfloat16 where the processor multiplies in it."""
    scoring: ScoringConfig = ScoringConfig()
    """Scoring."""
    overlap: bool = False
    """Sample and score the next phase while this one learns, from weights one phase old; needs cores or a server to spare."""
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    """Time between checkpoints within a phase; every phase also ends with one."""
    lora: LoraSettings | None = None
    """Train a low-rank adapter rather than all weights; it is merged for gate and serving."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each loss by its name."""
        return {
            "preference": self.weight_preference,
            "quality": self.weight_quality,
            "generation": self.weight_generation,
        }

    def learning_rate_at(self, phase: int) -> float:
        """Learning rate of a phase: falls linearly to 1/phases of the first, so that one sync's samples weigh less and less."""
        return self.learning_rate * (1 - phase / self.phases)
