"""The speed of a run: clips per second since its last start, and seconds over all its starts."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from melpatch import distributed
from melpatch.training.launching import memory_gib
from melpatch.training.run import Run


class Speedometer:
    """Measures the time of a run's steps, without evaluations and saves.

    Args:
        run: the run folder, whose speed.jsonl holds the seconds of earlier starts.
        step: steps done before this start.

    Attributes:
        seconds: wall-clock time of the steps, over all starts.
        cpu_seconds: CPU time of this process in the steps, decoding included, over all starts.
    """

    def __init__(self, run: Run, step: int) -> None:
        before = run.speed(run.folder)
        self.seconds = before.get("seconds", 0.0)
        # CPU seconds are summed over the ranks, so only rank 0 carries those of earlier starts.
        self.cpu_seconds = 0.0
        if distributed.is_rank_zero():
            self.cpu_seconds = before.get("cpu_seconds", 0.0)
        self._batch_size = run.config.loader.batch_size
        self._first_step = step
        self._started = time.monotonic()

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add the time that the body takes to both counts of seconds."""
        cpu = time.process_time()
        clock = time.monotonic()
        yield
        self.cpu_seconds += time.process_time() - cpu
        self.seconds += time.monotonic() - clock

    def steps_per_second(self, step: int) -> float:
        """Return the mean rate since this start, with evaluations and saves.

        Args:
            step: steps done so far, over all starts.
        """
        elapsed = time.monotonic() - self._started
        return (step - self._first_step) / max(elapsed, 1e-9)

    def clips_per_second(self, step: int) -> float:
        """Return the mean rate in clips, of all ranks together."""
        return self.steps_per_second(step) * self._batch_size

    def record(self, step: int) -> dict[str, int | float]:
        """Return a line for speed.jsonl; a collective call."""
        clips_per_second = self.clips_per_second(step)
        cpu_seconds = sum(distributed.all_gather_objects(self.cpu_seconds))
        return {
            "step": step,
            "clips_per_second": round(clips_per_second, 2),
            "memory_gib": round(memory_gib(), 3),
            "cpu_seconds": round(cpu_seconds, 3),
            "seconds": round(self.seconds, 3),
        }
