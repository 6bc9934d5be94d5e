"""TensorBoard, Weights & Biases and MLflow as trackers; each library is imported where it is opened."""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from corewrite.domain.extras import from_extra
from corewrite.training.tracking import Open, Tracker, TrackerName

PROJECT = "corewrite"
"""W&B's project and MLflow's experiment where their environment variables name none."""
_ID_TAG = "corewrite.training"
_ODD = re.compile(r"[^\w\-./ ]")  # MLflow refuses other characters in names
About = Mapping[str, str | int]


def tracker_openers(names: Sequence[TrackerName], folder: Path, about: About) -> dict[str, Open]:
    """How each tracker is opened, for `tracked`.

    Args:
        names: Of the trackers.
        folder: Of the training run; what trackers keep on disk is in it, in a folder named as they are.
        about: What the training is of (versions, hashes, window), shown beside the metrics.
    """
    make: Mapping[TrackerName, Callable[[Path, About, str], Tracker]] = {
        "tensorboard": TensorBoardTracker,
        "wandb": WandbTracker,
        "mlflow": MlflowTracker,
    }
    return {name: partial(make[name], folder, about) for name in names}


class TensorBoardTracker:
    """Event files in the folder `tensorboard` of the run: `tensorboard --logdir RUN`."""

    def __init__(self, folder: Path, about: About, training: str) -> None:
        """Open a file for this process's part of the training.

        Args:
            folder: Of the training run.
            about: What the training is of.
            training: Its id.

        Raises:
            MissingExtraError: TensorBoard is not installed.
        """
        with from_extra("tensorboard", "the tracker tensorboard needs TensorBoard"):
            from torch.utils.tensorboard import SummaryWriter
        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("about", "\n".join(f"- {k}: {v}" for k, v in {**about, "training": training}.items()))  # type: ignore[no-untyped-call]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a step."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the file."""
        self._writer.close()  # type: ignore[no-untyped-call]


class WandbTracker:
    """A run of Weights & Biases, which a training that goes on takes up again.

    `WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_API_KEY`, `WANDB_BASE_URL` and `WANDB_MODE` are W&B's own; with `WANDB_MODE=offline`
    nothing leaves the machine, and `wandb sync` sends the folder `wandb` of the run later.
    """

    def __init__(self, folder: Path, about: About, training: str) -> None:
        """Begin the run, or take it up again.

        Args:
            folder: Of the training run.
            about: What the training is of.
            training: Its id.

        Raises:
            MissingExtraError: W&B's client is not installed.
            RuntimeError: it has no key; it would ask for one at the terminal and wait.
        """
        with from_extra("wandb", "the tracker wandb needs W&B's client"):
            import wandb
        if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.login(prompt=False):
            raise RuntimeError("no key: set WANDB_API_KEY, run `wandb login`, or set WANDB_MODE=offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=training,
            resume="allow",
            dir=str(folder),
            config=dict(about),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hand the metrics of a step to W&B's own process."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """End the run, once all is sent."""
        self._run.finish()


class MlflowTracker:
    """A run of MLflow, which a training that goes on takes up again.

    `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME` are MLflow's own.
    """

    def __init__(self, folder: Path, about: About, training: str) -> None:
        """Begin the run, or take it up again.

        Args:
            folder: Of the training run.
            about: What the training is of.
            training: Its id.

        Raises:
            MissingExtraError: MLflow is not installed.
        """
        with from_extra("mlflow", "the tracker mlflow needs MLflow"):
            from mlflow import MlflowClient
        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        place = self._client.create_experiment(name) if found is None else found.experiment_id
        runs = self._client.search_runs([place], f"tags.`{_ID_TAG}` = '{training}'")
        if runs:
            self._run = runs[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            tags = {_ID_TAG: training, **{name: str(value) for name, value in about.items()}}
            self._run = self._client.create_run(place, run_name=folder.parent.name, tags=tags).info.run_id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[Metric(_ODD.sub("_", n), value, now, step) for n, value in metrics.items()])

    def close(self) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(self._run)
