"""Curves and pictures for those who want more than metrics.jsonl: TensorBoard, through Fabric's logger."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.data.clip import Batch
from melpatch.errors import MelpatchError
from melpatch.objectives.base import Objective, Picture

Track = Literal["none", "tensorboard"]


class Tracker:
    """A tracker that keeps nothing."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Note numbers by name."""

    def picture(self, objective: Objective, batch: Batch, step: int) -> None:
        """Note what the objective saw and said of the batch's first clip."""

    def close(self) -> None:
        """Write out what is left."""


class TensorBoard(Tracker):
    """Curves, masks and reconstructions in a folder that ``tensorboard --logdir`` shows."""

    def __init__(self, folder: Path) -> None:
        try:
            from lightning_fabric.loggers.tensorboard import TensorBoardLogger

            self.logger: Any = TensorBoardLogger(folder, name="", version="tensorboard")
            _ = self.logger.experiment
        except ModuleNotFoundError as error:
            raise MelpatchError(
                "--track tensorboard needs TensorBoard; install it: pip install 'melpatch[track]'"
            ) from error

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Note numbers by name."""
        self.logger.log_metrics(dict(values), step)

    def picture(self, objective: Objective, batch: Batch, step: int) -> None:
        """Add the clean, masked and rebuilt spectrogram of the first clip, one above the other, low mels at the
        bottom."""
        with torch.no_grad():
            drawn = objective.picture(batch, step)
        if drawn is not None:
            self.logger.experiment.add_image("clean, masked, rebuilt", _grey(drawn), step, dataformats="HW")

    def close(self) -> None:
        """Write out what is left."""
        self.logger.finalize("success")


def _grey(picture: Picture) -> Float[Tensor, "height frame"]:
    low, high = picture.clean.min(), picture.clean.max()
    stages = [((stage - low) / (high - low).clamp(min=1e-6)).nan_to_num(0.5).clamp(0, 1).flip(0) for stage in picture]
    line = torch.ones(2, picture.clean.shape[1])
    return torch.cat([stages[0], line, stages[1], line, stages[2]]).float().cpu()


def make_tracker(kind: Track, folder: Path) -> Tracker:
    """Return the tracker of that name."""
    return TensorBoard(folder) if kind == "tensorboard" else Tracker()
