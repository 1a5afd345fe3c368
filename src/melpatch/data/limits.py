"""Worker processes and batch sizes that this machine cannot hold, refused before it tries."""

from math import isfinite

from melpatch.config import check
from melpatch.machine import memory_bytes, most_workers

_SAMPLE_BYTES = 4  # float32


def require_workers(workers: int) -> None:
    """Raise SettingError if there are far more worker processes than processors."""
    most = most_workers()
    check(workers <= most, "workers", workers, f"0 to {most} on this machine")


def require_batch(batch_size: int, seconds: float, sample_rate: int) -> None:
    """Raise SettingError if the samples of one batch alone do not fit into the memory.

    Args:
        batch_size: clips or windows.
        seconds: length of each.
        sample_rate: in Hz.
    """
    memory = memory_bytes()
    if memory is None or not isfinite(seconds):
        return
    most = max(1, int(memory / (seconds * sample_rate * _SAMPLE_BYTES)))
    allowed = f"1 to {most} of {seconds:g} s at {sample_rate} Hz in this machine's memory"
    check(batch_size <= most, "batch_size", batch_size, allowed)
