"""Curves and pictures for those who want more than metrics.jsonl: TensorBoard, through Fabric's logger."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.colours import class_colours
from melpatch.data.clip import Batch
from melpatch.distributed import is_rank_zero
from melpatch.errors import MelpatchError
from melpatch.objectives.base import Objective, Picture

Track = Literal["none", "tensorboard"]
_LINE = 2  # white pixels between two spectrograms
_PATCH = 16  # pixels on a side of a patch in the map of classes


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
        """Add the spectrograms of the first clip, one above the other, and its map of classes if there is one; low
        mels at the bottom, hidden parts grey."""
        with torch.no_grad():
            drawn = objective.picture(batch, step)
        if drawn is None:
            return
        stages = _stages(drawn)
        self.logger.experiment.add_image(
            ", ".join(stages), _grey(drawn.clean, stages), step, dataformats="HW"
        )
        if drawn.pseudo_labels is not None:
            self.logger.experiment.add_image(
                "classes", _coloured(drawn.pseudo_labels), step, dataformats="HWC"
            )

    def close(self) -> None:
        """Write out what is left."""
        self.logger.finalize("success")


def _stages(picture: Picture) -> dict[str, Float[Tensor, "mel frame"]]:
    """Return the spectrograms by name, with the mask where what was seen does not show it."""
    mask = (
        {}
        if picture.masked_is_blank
        else {"mask": torch.where(picture.masked, torch.nan, picture.clean.max())}
    )
    rebuilt = {} if picture.reconstruction is None else {"rebuilt": picture.reconstruction}
    return {"clean": picture.clean, "seen": picture.input, **mask, **rebuilt}


def _grey(
    clean: Float[Tensor, "mel frame"], stages: Mapping[str, Float[Tensor, "mel frame"]]
) -> Float[Tensor, "height frame"]:
    """Return the spectrograms one above the other, in the scale of the clean one."""
    low, high = clean.min(), clean.max()
    shades = [
        ((stage - low) / (high - low).clamp(min=1e-6)).nan_to_num(0.5).clamp(0, 1)
        for stage in stages.values()
    ]
    return (
        torch.cat([F.pad(shade.flip(0), (0, 0, 0, _LINE), value=1.0) for shade in shades])[:-_LINE]
        .float()
        .cpu()
    )


def _coloured(classes: Int[Tensor, "row column"]) -> Float[Tensor, "height width 3"]:
    """Return the map of classes, lowest row at the bottom."""
    return (
        class_colours(classes.flip(0))
        .repeat_interleave(_PATCH, 0)
        .repeat_interleave(_PATCH, 1)
        .cpu()
    )


def make_tracker(kind: Track, folder: Path) -> Tracker:
    """Return the tracker of that name; of several processes the first one alone keeps anything."""
    return TensorBoard(folder) if kind == "tensorboard" and is_rank_zero() else Tracker()
