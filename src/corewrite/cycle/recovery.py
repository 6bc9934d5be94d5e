"""What a cycle does differently after a REJECT, and when it stops trusting the reward."""

from collections.abc import Callable, Mapping, Sequence

from corewrite.cycle.records import RankerHashes, WeekRecord
from corewrite.gate import Verdict, current_mitigation
from corewrite.training import TrainingConfig


def verdicts_in_a_row(history: Sequence[WeekRecord], verdict: Verdict) -> int:
    """How many of the latest cycles ended so, one after the other."""
    n = 0
    for record in reversed(history):
        if record["verdict"] != verdict:
            break
        n += 1
    return n


def mitigations(history: Sequence[WeekRecord]) -> list[str]:
    """What the failed checks of the latest REJECTs in a row ask for, the oldest first; of each REJECT the clearest two.

    Of at most three: each doubles or halves something, and settings without bound would leave no training that can succeed.
    """
    n = min(3, verdicts_in_a_row(history, Verdict.REJECT))
    latest = history[len(history) - n :] if n else []
    return [current_mitigation(name) for record in latest for name in record["mitigations"][:2]]


def mitigated(config: TrainingConfig, wanted: Sequence[str]) -> TrainingConfig:
    """Training settings with the mitigations applied; a repeated one is applied again.

    Raises:
        ValueError: a mitigation is unknown, or the settings refuse what it makes of them.
    """
    for name in wanted:
        config = TrainingConfig.model_validate({**config.model_dump(), **_change(config, name)})
    return config


def shown_rate(rate: float, wanted: Sequence[str]) -> float:
    """Learning rate of the week's repairs under the mitigations: lowered as that of training is.

    What is shown first moves the policy too: with training alone held back it decided in months of cycles what a candidate was.
    """
    plain = TrainingConfig()
    return rate * mitigated(plain, wanted).learning_rate / plain.learning_rate


def _change(config: TrainingConfig, name: str) -> Mapping[str, object]:
    match current_mitigation(name):
        case "stronger_kl":  # a stronger reference, and one that stays the champion
            return {"beta": 2 * config.beta, "sync_ref_model": False, "learning_rate": config.learning_rate / 2}
        case "length_control":
            return {"length_normalised": True, "learning_rate": config.learning_rate / 2, "sync_ref_model": False}
        case "wider_pair_margin":
            return {"minimum_gap": 1.5 * config.minimum_gap, "beta": 2 * config.beta}
        case "higher_sft_weight":
            # Up to 0.3 however often: with much more of it the policy learns to leave queries alone.
            return {"weight_generation": max(config.weight_generation, min(0.3, 3 * max(config.weight_generation, 0.1 / 3)))}
        case "lower_rate":
            return {"learning_rate": config.learning_rate / 2}
        case "none":
            return {}
    raise ValueError(f"mitigation {name!r} is unknown")


def stuck(history: Sequence[WeekRecord], after: int) -> list[str]:
    """An alarm where so many cycles in a row ended with a REJECT, whatever they were under; else none."""
    n = verdicts_in_a_row(history, Verdict.REJECT)
    if n < after:
        return []
    return [f"{n} candidates in a row were rejected, the mitigations do not help: look at the failed checks"]


def suspicious(
    history: Sequence[WeekRecord], after: int, usable: Callable[[WeekRecord], bool] = lambda record: True
) -> RankerHashes | None:
    """The relevance model and spec to go back to, where the newer ones are suspected; None where they are not.

    Suspected are a model or spec under which at least `after` candidates were rejected, the present one among them, and none
    was promoted that was trained without mitigations: a training that has to be held back from a reward does not speak for it.

    Args:
        history: Finished cycles, oldest first, the present one included.
        after: REJECTs.
        usable: Whether a record's model and spec can still be promoted; others are passed over.
    """
    if not verdicts_in_a_row(history, Verdict.REJECT):
        return None
    now = (history[-1]["relevance"], history[-1]["spec"])
    under = [r for r in history if (r["relevance"], r["spec"]) == now]
    sound = [r for r in history if r["verdict"] == Verdict.PROMOTE and not r["mitigations_applied"]]
    if any(r in under for r in sound) or sum(r["verdict"] == Verdict.REJECT for r in under) < after:
        return None
    before = [r for r in sound if r not in under and usable(r)]
    return RankerHashes(before[-1]["relevance"], before[-1]["spec"]) if before else None
