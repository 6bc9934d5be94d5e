"""Settings of semi-online MPO."""

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """One training run; the defaults suit rewrites of a few tokens by a small decoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phases: int = Field(default=6, ge=1)
    """Phases: in each, weights are synced to the sampler once."""
    instances_per_phase: int = Field(default=3_000, ge=1)
    """Instances drawn for a phase."""
    samples: int = Field(default=12, ge=1)
    """N: rewrites sampled per instance; the identity is added as candidate N+1."""
    k: int = Field(default=1, ge=1)
    """Pairs per instance at most: the i-th best with the i-th worst."""
    minimum_gap: float = Field(default=0.05, ge=0)
    """g_min: pairs closer than this in log R are dropped, nats."""
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
    learning_rate: float = Field(default=4e-4, gt=0)
    """Of Adam in the first phase, after a warm-up of ten steps; falling linearly from phase to phase."""
    adam_epsilon: float = Field(default=1e-4, gt=0)
    """Large, as arXiv 2506.21495 found stable."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of a step's gradient."""
    pairs_per_step: int = Field(default=128, ge=1)
    """Pairs of one optimizer step."""
    tokens_per_micro_batch: int = Field(default=8_192, ge=64)
    """Padded tokens of one forward pass at most; memory only, results do not depend on it beyond rounding."""
    max_new_tokens: int = Field(default=14, ge=2, le=64)
    """Length limit of a sampled rewrite, tokens."""
    refresh_reference: bool = False
    """Make the synced policy the reference at the start of every phase, rather than keep the first."""

    def learning_rate_of(self, phase: int) -> float:
        """Learning rate of a phase: what it has just learnt from one sync's samples should weigh less and less."""
        return self.learning_rate * (1 - phase / self.phases)
