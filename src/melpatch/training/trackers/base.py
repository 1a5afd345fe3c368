"""The base class of trackers, and the ids by which a resumed run continues its curves."""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.atomic import written_aside
from melpatch.data.clip import Batch
from melpatch.errors import MelpatchError
from melpatch.objectives.base import Objective
from melpatch.opening import read_json, reading
from melpatch.training.trackers.images import image_of_views, images_of

Track = Literal["none", "tensorboard", "wandb", "mlflow", "trackio"]
PROJECT = "melpatch"
"""Project or experiment of the runs, unless the client's own setting names another."""
_NOTE = "tracker.json"


class Tracker:
    """Record nothing; subclasses override :meth:`scalars`, :meth:`image` and :meth:`close`."""

    draws = False
    """Whether it records pictures; otherwise none are drawn."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers by name."""

    def image(self, name: str, pixels: Float[Tensor, "height width 3"], step: int) -> None:
        """Record a picture with values in [0, 1]."""

    def picture(self, objective: Objective, batch: Batch, step: int) -> None:
        """Record input and prediction, or views, of the batch's first clip, if the objective can."""
        if not self.draws:
            return
        with torch.no_grad():
            picture = objective.picture(batch, step)
            images = image_of_views(objective.view_pictures(batch, step))
        if picture is not None:
            images |= images_of(picture)
        for name, pixels in images.items():
            self.image(name, pixels, step)

    def close(self) -> None:
        """Write what has not been written yet."""


def import_client(package: str, extra: str) -> Any:
    """Return a tracker's client package.

    Raises:
        MelpatchError: it is not installed; the message names the extra.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise MelpatchError(
            f"--track {package} needs {package}; install it: pip install 'melpatch[{extra}]'"
        ) from error


def saved_id(folder: Path, kind: Track) -> str | None:
    """Return the id that a tracker gave to the run in a folder; None at its first start."""
    return _ids(folder).get(kind)


def save_id(folder: Path, kind: Track, value: str) -> None:
    """Save a tracker's id of the run in tracker.json, for a resumed run to continue its curves."""
    ids = {**_ids(folder), kind: value}
    with written_aside(folder / _NOTE) as aside:
        aside.write_text(json.dumps(ids), encoding="utf-8")


def _ids(folder: Path) -> dict[str, str]:
    path = folder / _NOTE
    if not path.exists():
        return {}
    with reading(path, "restore it from a backup, or delete it"):
        return read_json(path)
