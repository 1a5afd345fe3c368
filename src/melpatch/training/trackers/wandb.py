"""Weights & Biases, through its own client: WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE=offline are respected."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from melpatch.training.trackers.base import PROJECT, Tracker, import_client, save_id, saved_id


class WandB(Tracker):
    """Curves and pictures at wandb, or in the folder ``wandb`` of the run when offline."""

    draws = True

    def __init__(self, folder: Path) -> None:
        self._client: Any = import_client("wandb", "wandb")
        folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = self._client.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.absolute().name,
            dir=str(folder),
            id=saved_id(folder, "wandb"),
            resume="allow",
        )
        save_id(folder, "wandb", str(self._run.id))
        # The step is an axis of our own: wandb drops values of steps before the last one it has seen.
        self._run.define_metric("train_step")
        self._run.define_metric("*", step_metric="train_step")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Note numbers by name."""
        self._run.log({**values, "train_step": step})

    def image(self, name: str, pixels: Float[Tensor, "height width 3"], step: int) -> None:
        """Note a picture with values in [0, 1]."""
        image = self._client.Image((255 * pixels).byte().numpy())
        self._run.log({name: image, "train_step": step})

    def close(self) -> None:
        """Upload or write what is left, and end the run."""
        self._run.finish()
