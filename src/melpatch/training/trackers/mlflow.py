"""MLflow, through its own client; respects MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from melpatch.training.trackers.base import PROJECT, Tracker, import_client, save_id, saved_id


class MLflow(Tracker):
    """Record curves and pictures in an MLflow run, by default stored in the working directory."""

    draws = True

    def __init__(self, folder: Path) -> None:
        self._client: Any = import_client("mlflow", "mlflow")
        if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
            self._client.set_experiment(PROJECT)
        # A resumed run keeps the name it has.
        run_id = saved_id(folder, "mlflow")
        name = None if run_id else folder.absolute().name
        run = self._client.start_run(run_id=run_id, run_name=name)
        folder.mkdir(parents=True, exist_ok=True)
        save_id(folder, "mlflow", str(run.info.run_id))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers by name."""
        self._client.log_metrics(dict(values), step=step)

    def image(self, name: str, pixels: Float[Tensor, "height width 3"], step: int) -> None:
        """Record a picture with values in [0, 1]."""
        # MLflow allows no commas in a key.
        key = name.replace(", ", "-")
        self._client.log_image((255 * pixels).byte().numpy(), key=key, step=step)

    def close(self) -> None:
        """End the run."""
        self._client.end_run()
