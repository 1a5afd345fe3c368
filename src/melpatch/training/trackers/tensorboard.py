"""TensorBoard, through Fabric's logger; writes to the folder ``tensorboard`` of the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from melpatch.errors import MelpatchError
from melpatch.training.trackers.base import Tracker


class TensorBoard(Tracker):
    """Record curves and pictures in a folder for ``tensorboard --logdir``."""

    draws = True

    def __init__(self, folder: Path) -> None:
        try:
            from lightning_fabric.loggers.tensorboard import TensorBoardLogger

            self._logger: Any = TensorBoardLogger(folder, name="", version="tensorboard")
            # The client is imported only when the writer is first used.
            _ = self._logger.experiment
        except ModuleNotFoundError as error:
            raise MelpatchError(
                "--track tensorboard needs TensorBoard; install it: pip install 'melpatch[track]'"
            ) from error

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers by name."""
        self._logger.log_metrics(dict(values), step)

    def image(self, name: str, pixels: Float[Tensor, "height width 3"], step: int) -> None:
        """Record a picture with values in [0, 1]."""
        self._logger.experiment.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what has not been written yet."""
        self._logger.finalize("success")
