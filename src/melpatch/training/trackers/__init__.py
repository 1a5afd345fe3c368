"""Experiment trackers, which show curves and pictures of a run; one file per tracker."""

from pathlib import Path

from melpatch.distributed import is_rank_zero
from melpatch.training.trackers.base import Track, Tracker

__all__ = ["Track", "Tracker", "make_tracker"]


def make_tracker(kind: Track, folder: Path) -> Tracker:
    """Return a tracker for a run folder; on ranks other than 0, one that records nothing.

    A resumed run continues in the same curves.

    Raises:
        MelpatchError: the tracker's client is not installed.
    """
    if kind == "none" or not is_rank_zero():
        return Tracker()
    if kind == "tensorboard":
        from melpatch.training.trackers.tensorboard import TensorBoard

        return TensorBoard(folder)
    if kind == "wandb":
        from melpatch.training.trackers.wandb import WandB

        return WandB(folder)
    if kind == "mlflow":
        from melpatch.training.trackers.mlflow import MLflow

        return MLflow(folder)
    from melpatch.training.trackers.trackio import Trackio

    return Trackio(folder)
