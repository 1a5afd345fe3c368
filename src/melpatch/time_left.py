"""The rate of a loop and the time that it still takes, measured after its warm-up.

The first steps of a loop are slower than the rest: processes start, files are opened, and kernels
are chosen. Results may also come in bursts, as from batches of files that end together.
"""

# Share of the steps that is the warm-up, and its largest number.
_WARM_UP_SHARE = 0.05
_MOST_WARM_UP_STEPS = 10
# The first burst belongs to the warm-up while it lasts no longer than this share of it.
_BURST = 0.2
# The estimate needs steps over this share of the duration of the warm-up, and over this many times
# the longest wait between steps: a burst that is counted in part shifts it by a sixth at most.
_ENOUGH = 0.5
_ENOUGH_WAITS = 6


class RateEstimate:
    """Measures a loop's rate from the end of its warm-up on.

    Args:
        total: number of steps; None if that is not known.
        done: steps done before the loop starts, which do not count.
        now: time of the start, in seconds of any clock.
    """

    def __init__(self, total: int | None, done: int, now: float) -> None:
        remaining = max(0, (total or 0) - done)
        warm_up_steps = min(_MOST_WARM_UP_STEPS, int(_WARM_UP_SHARE * remaining))
        self._total = total
        self._start = now
        self._warm_at = done + warm_up_steps
        # When the warm-up had its steps; None before.
        self._warm_since = now if warm_up_steps == 0 else None
        # The rate is measured from this time and number of steps on.
        self._from = (now, done)
        self._latest = (now, done)
        self._longest_wait = 0.0
        self._known = False

    def update(self, done: int, now: float) -> None:
        """Note the number of steps that are done at a time."""
        wait = now - self._latest[0]
        self._latest = (now, done)
        if self._warm_since is None and done >= self._warm_at:
            self._warm_since = now
        if self._warm_since is None:
            return
        # Steps that were prepared during the warm-up come in a burst; the rate is measured after
        # it.
        burst = _BURST * (self._warm_since - self._start)
        if now - self._warm_since <= burst and self._warm_since > self._start:
            self._from = (now, done)
            return
        self._longest_wait = max(self._longest_wait, wait)
        self._known = self._known or self._has_enough()

    def per_second(self) -> float | None:
        """Return steps per second after the warm-up; None while that is not known."""
        if not self._known:
            return None
        start, before = self._from
        now, done = self._latest
        return (done - before) / (now - start)

    def seconds_left(self) -> float | None:
        """Return the seconds that the remaining steps take; None while that is not known."""
        rate = self.per_second()
        if rate is None or self._total is None:
            return None
        return max(0, self._total - self._latest[1]) / rate

    def _has_enough(self) -> bool:
        """Return whether the steps since the warm-up say how long the rest takes."""
        start, before = self._from
        now, done = self._latest
        if done <= before or now <= start:
            return False
        # A loop of a few long steps has no warm-up, and each step counts.
        if start == self._start:
            return True
        seconds = now - start
        return seconds >= max(
            _ENOUGH * (start - self._start), _ENOUGH_WAITS * self._longest_wait * (1 - 1e-9)
        )


def in_words(seconds: float) -> str:
    """Return an estimated duration as roughly as it is known: ``about 40 s``, ``about 2.5 h``."""
    if seconds < 99.5:
        return f"about {seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"about {seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"about {seconds / 3600:.1f} h"
    return f"about {seconds / 86400:.1f} days"
