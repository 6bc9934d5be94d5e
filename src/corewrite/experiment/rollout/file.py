"""The file of a progressive rollout, `ramp.json`: written by the cycle, read by the cycle and by every server."""

import json
import math
from pathlib import Path

from corewrite.experiment.rollout.config import RolloutConfig
from corewrite.experiment.rollout.progressive import RolloutState
from corewrite.storage.durable import whole_file


class RolloutFileError(ValueError):
    """A rollout that cannot be read; the message says what to do."""


def load_rollout(file: Path) -> tuple[RolloutState, RolloutConfig] | None:
    """The rollout and the settings it began under; None where there is no file.

    Raises:
        RolloutFileError: the file is damaged.
    """
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text("utf-8"))
        state, config = RolloutState.from_json(found["state"]), RolloutConfig.model_validate(found["config"])
        if not 0 <= state.stage < len(config.stages):
            raise ValueError(f"stage {state.stage} is none of {len(config.stages)}")
        if state.champion < 1 or state.previous < 1 or not math.isfinite(state.since):
            raise ValueError("champion and previous are versions from 1 on, since is a time")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RolloutFileError(
            f"{file} is damaged ({error}): restore it, or remove it to give the champion to everybody"
        ) from error
    return state, config


def save_rollout(file: Path, state: RolloutState, config: RolloutConfig) -> None:
    """Write a rollout so that it is there whole, or as it was, after a power cut."""
    value = {"state": state.to_json(), "config": config.model_dump(mode="json")}
    with whole_file(file) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")
