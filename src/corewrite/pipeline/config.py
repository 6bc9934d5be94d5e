"""Settings of the pipeline, from YAML or defaults."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from corewrite.domain import Settings
from corewrite.gate import GateConfig
from corewrite.rewriter import MAX_NEW_TOKENS
from corewrite.training import TrainingConfig


class WarmStartConfig(Settings):
    """Supervised fine-tuning before MPO."""

    examples: int = Field(default=170_000, ge=1)
    """Examples at most; a random share of each kind is left out beyond."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the examples."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak, for a decoder trained from scratch."""
    learning_rate_pretrained: float = Field(default=1e-4, gt=0)
    """Peak, for a model given by path or name."""


class ServerConfig(Settings):
    """An OpenAI-compatible server that samples for the training (see `corewrite.training.server_engine`)."""

    url: str
    """Where it listens, such as http://localhost:8000."""
    model_folder: Path
    """Where versions of the policy are written for it: a folder of this run's own, under the same path for both."""
    reload: Literal["weights", "adapter"] = "weights"
    """What a sync hands over; adapter needs `training.lora`."""
    drift_limit: float = Field(default=0.25, gt=0)
    """Largest difference of log-probabilities from the trainer's that is rounding, nats a token."""


class PipelineConfig(Settings):
    """One weekly run."""

    warm_start: WarmStartConfig = WarmStartConfig()
    """Warm start."""
    training: TrainingConfig = TrainingConfig()
    """Semi-online MPO."""
    server: ServerConfig | None = None
    """Sample on a server; default: in this process."""
    gate: GateConfig = Field(default_factory=GateConfig)
    """Promotion gate."""
    gate_queries: int = Field(default=4_000, ge=100)
    """Searches of gate users that the gate looks at, at most."""
    watched_queries: int = Field(default=1_000, ge=50)
    """Of those, the searches on which reward and judge are shown after each phase."""
    probe_instances: int = Field(default=1_000, ge=50)
    """Instances that the relevance model is probed on before training, at most."""
    max_new_tokens: int = Field(default=MAX_NEW_TOKENS, ge=2, le=64)
    """Length limit of a served rewrite, tokens."""
