"""Weights & Biases, through its own client; respects its WANDB_ environment variables.

WANDB_PROJECT and WANDB_ENTITY say where runs go; WANDB_MODE=offline keeps them in the run folder.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from melpatch.training.trackers.base import PROJECT, Tracker, import_client, save_id, saved_id


class WandB(Tracker):
    """Record curves and pictures at wandb, or in the run's folder ``wandb`` if offline."""

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
        # The step is a metric of our own: wandb drops values of steps before the last one it has
        # seen, which a resumed run may log again.
        self._run.define_metric("train_step")
        self._run.define_metric("*", step_metric="train_step")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers by name."""
        self._run.log({**values, "train_step": step})

    def image(self, name: str, pixels: Float[Tensor, "height width 3"], step: int) -> None:
        """Record a picture with values in [0, 1]."""
        image = self._client.Image((255 * pixels).byte().numpy())
        self._run.log({name: image, "train_step": step})

    def close(self) -> None:
        """Upload or write what has not been yet, and end the run."""
        self._run.finish()
