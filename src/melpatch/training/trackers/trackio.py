"""Trackio, through its own client; local by default, shown by ``trackio show``."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from jaxtyping import Float
from torch import Tensor

from melpatch.training.trackers.base import PROJECT, Tracker, import_client, save_id, saved_id


class Trackio(Tracker):
    """Record curves and pictures in Trackio's local store, or in the Space set for its client."""

    draws = True

    def __init__(self, folder: Path) -> None:
        self._client: Any = import_client("trackio", "trackio")
        # Trackio identifies runs by name, so that names must differ between folders.
        name = saved_id(folder, "trackio") or f"{folder.absolute().name}-{uuid4().hex[:8]}"
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._client.init(project=project, name=name, resume="allow")
        folder.mkdir(parents=True, exist_ok=True)
        save_id(folder, "trackio", name)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers by name."""
        self._client.log(dict(values), step=step)

    def image(self, name: str, pixels: Float[Tensor, "height width 3"], step: int) -> None:
        """Record a picture with values in [0, 1]."""
        image = self._client.Image((255 * pixels).byte().numpy())
        self._client.log({name: image}, step=step)

    def close(self) -> None:
        """Write what has not been written yet, and end the run."""
        self._client.finish()
