"""A trained model used on recordings by a command: from the command's settings to one output."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import melpatch
from melpatch import distributed
from melpatch.config import check
from melpatch.data.clip import Clip
from melpatch.inference import tables
from melpatch.inference.engine import InferenceTask
from melpatch.inference.model import Model
from melpatch.inference.network import Precision
from melpatch.inference.sources import fingerprint, recordings
from melpatch.inference.tables import Column
from melpatch.inference.writing import InferenceJob, carry_out


@dataclass(frozen=True, kw_only=True)
class UseConfig:
    """What every command is told that uses a trained model on recordings."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    recordings: tyro.conf.Positional[tuple[str, ...]]
    """Audio files, folders of them, CSV files with a column path, and folders of shards or their URLs."""
    out: Path
    """File to write."""
    batch_size: int | None = None
    """Windows at a time, of many recordings together; by default 8, or 64 on a GPU."""
    workers: int | None = None
    """Processes that decode beside the network; 0 decodes in a thread beside it. By default 0, or one per processor, up
    to 8, on a GPU."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto is bf16-mixed on a GPU that computes in it, and 32-true elsewhere."""
    resume: bool = False
    """Go on with what a killed run left in OUT.parts; recordings that were finished are not computed again."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(
            self.batch_size is None or self.batch_size >= 1,
            "batch_size",
            self.batch_size,
            "1 or more",
        )
        check(self.workers is None or self.workers >= 0, "workers", self.workers, "0 or more")


def write_rows(
    config: UseConfig,
    model: Model,
    task: InferenceTask,
    columns: Sequence[Column],
    *,
    kind: str,
    about: Mapping[str, Any],
    timed: bool,
    keep: bool,
) -> None:
    """Write what a task makes of a command's recordings, one table of all of them.

    Args:
        config: the command's settings.
        model: what computes.
        task: what is asked of each recording.
        columns: of the rows' values; they follow those that say what a row stands for.
        kind: of table where the output's name has no ending.
        about: the settings that the rows hang on, besides recordings and model.
        timed: whether rows have their times where all recordings are whole files; otherwise they have them always, and
            the clip's key too.
        keep: whether the rows stay of a recording that could not be read to its end.

    Raises:
        ConfigError: the output's name has a wrong ending.
        CheckpointError: parts of a killed run are there that must not be mixed with new ones.
        DataError: a source does not exist, or no recording can be read.
    """
    kind, found = tables.kind(config.out, kind), recordings(config.recordings)
    same = {
        "melpatch": melpatch.__version__,
        "recordings": fingerprint(found),
        "model": _digest(config.run),
    }
    job = InferenceJob(
        out=config.out,
        kind=kind,
        recordings=found,
        task=task,
        columns=[*_places(found, timed), *columns],
        about=same | {"precision": model.precision} | dict(about),
        keep=keep,
        batch_size=config.batch_size or model.default_batch_size,
        workers=model.default_workers if config.workers is None else config.workers,
        resume=config.resume or distributed.restarted(),
    )
    carry_out(job)


def _places(found: Sequence[Clip], timed: bool) -> list[Column]:
    """Return the columns that say which stretch of which recording a row stands for."""
    names, keys = [clip.location for clip in found], np.array([clip.key for clip in found])
    starts = np.array([clip.start for clip in found])
    path = Column("path", lambda rows: np.array([names[number] for number in rows["recording"]]))
    key = Column("key", lambda rows: keys[rows["recording"]])
    times = [
        Column("start", lambda rows: starts[rows["recording"]] + rows["start"], ".3f"),
        Column("end", lambda rows: starts[rows["recording"]] + rows["end"], ".3f"),
    ]
    if any(clip.duration < inf or clip.start for clip in found):
        return [path, key, *times]
    return [path, *times] if timed else [path]


def _digest(run: Path) -> str:
    """Return a hash of a run's settings and weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name in ("config.toml", "model.safetensors"):
        digest.update((run / name).read_bytes())
    return digest.hexdigest()
