"""Where a run's weights come from, and which scored clips they were trained on."""

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from melpatch.data.clip import Clip
from melpatch.data.fingerprints import content_identities
from melpatch.evaluation.job import EvaluationJob
from melpatch.opening import read_text, reading
from melpatch.training.run import COMMAND, Run


@dataclass(frozen=True)
class TrainedOn:
    """Which of some clips a run, or a run that it started from, was trained on.

    Attributes:
        keys: of each run that was trained on any of the clips, the keys of these; the last run
            first.
        unknown: runs and weight files without a note of the clips they were trained on.
    """

    keys: dict[str, frozenset[int]]
    unknown: tuple[str, ...]

    @property
    def count(self) -> int | None:
        """The number of clips; None where it is unknown."""
        if self.unknown:
            return None
        return len(frozenset[int]().union(*self.keys.values()))


def trained_on(job: EvaluationJob, clips: Sequence[Clip]) -> TrainedOn:
    """Return which of some clips a job's network was trained on; none at random weights."""
    if job.random_weights:
        return TrainedOn({}, ())
    return run_trained_on(job.run, clips)


def run_trained_on(run: Path, clips: Sequence[Clip]) -> TrainedOn:
    """Return which of some clips a run was trained on, by their keys, places and contents."""
    keys: dict[str, frozenset[int]] = {}
    unknown: list[str] = []
    # A run may have read the same clips at another place, or under another name.
    contents = _contents(tuple(clips))
    for weights in _ancestry(run):
        identities = Run.trained_on(Path(weights))
        if identities is None:
            unknown.append(weights)
            continue
        trained = frozenset(
            clip.key
            for clip in clips
            if not identities.isdisjoint(clip.identities) or contents.get(clip.key) in identities
        )
        if trained:
            keys[weights] = trained
    return TrainedOn(keys, tuple(unknown))


# The same clips are looked up before and after the trials of each protocol.
@lru_cache(4)
def _contents(clips: tuple[Clip, ...]) -> dict[int, int]:
    return content_identities(clips)


def describe_initialisation(job: EvaluationJob) -> str:
    """Return in words what weights are scored."""
    if job.random_weights:
        return "random weights"
    return f"trained from {init_of(job.run) or 'random weights'}"


def _ancestry(run: Path) -> Iterable[str]:
    """Yield a run, then what it started from, and so on, each once: a run made again may name its own descendant."""
    seen: dict[str, None] = {}
    weights: str | None = str(run)
    while weights is not None and weights not in seen:
        seen[weights] = None
        weights = init_of(Path(weights))
    return seen


def init_of(run: Path) -> str | None:
    """Return the run or weights that a run started from; None for random weights, or where it did not note it."""
    path = run / COMMAND
    if not path.exists():
        return None
    with reading(path, "restore it from a backup, or delete it"):
        init = tomllib.loads(read_text(path)).get("init")
    return None if init in (None, "none", "scratch") else str(init)
