"""What a search gives: figures with intervals, the chosen stage of every budget."""

from dataclasses import dataclass

from corewrite.fusion.spec import StageSpec


@dataclass(frozen=True)
class StageEstimate:
    """A figure with its 95 % interval: percentiles of a bootstrap over users or conversations."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TuningOutcome:
    """What a stage does to the quality of the rankings, relative to no rewriter.

    Attributes:
        gain: Relative gain under the champion.
        loss: Relative loss by broken kind, negative where even that rewriter helps.
        worst: Largest of the losses. Its interval is that of the largest loss in each resample, which is not the same
            kind in all of them: its upper end lies a little above the truth, on the safe side.
    """

    gain: StageEstimate
    loss: dict[str, StageEstimate]
    worst: StageEstimate


@dataclass(frozen=True)
class TradeOff:
    """One budget.

    Attributes:
        budget: Largest loss allowed.
        stage: Chosen on all requests.
        chosen: Its outcome on the requests it was chosen on.
        held_out: Each fold's requests under the stage chosen without them.
        fold_stages: The stages chosen without each fold.
    """

    budget: float
    stage: StageSpec
    chosen: TuningOutcome
    held_out: TuningOutcome
    fold_stages: tuple[StageSpec, ...]


@dataclass(frozen=True)
class Tuning:
    """A tuned stage.

    Attributes:
        tuned: At the budget asked for.
        base: Outcome of the stage as it was before.
        curve: By budget, ascending, the one asked for among them.
        quality_without: Mean quality with no rewriter.
        requests: Number of requests.
        groups: Number of users or conversations.
        settings: Stages tried.
    """

    tuned: TradeOff
    base: TuningOutcome
    curve: tuple[TradeOff, ...]
    quality_without: float
    requests: int
    groups: int
    settings: int
