"""The run folder: settings, metrics, weights, and everything a resumed run needs.

::

    command.toml        settings of the command as the user gave them
    config.toml         resolved settings; reloadable
    corpus.json         number of clips, and a hash that detects a changed corpus
    clips.npy           sorted identities of the clips that the run was trained on
    environment.json    versions, machine, command, git commit; one entry per start
    metrics.jsonl       losses and scores; equal settings and data give equal files
    speed.jsonl         speed and seconds, summed over all starts of the run
    linear_probe.json   scores of the linear probe that a classifier's fine-tuning is held against
    source.json         of an imported model, where it comes from and its licence
    validation.json     scores of a classifier's kept weights on validation clips, with warnings
    rejected.csv        clips that could not be read
    model.safetensors   the weights to use
    teacher.safetensors the weights of the teacher of a distillation, which never change
    calibration.safetensors  of a classifier, see :mod:`melpatch.inference.calibration`
    embedding.safetensors  short vectors, see :mod:`melpatch.inference.fitted`
    lock                held by the process that trains
    resume/step-N/      newest checkpoints, see :mod:`melpatch.training.checkpoints`

Weights and checkpoints are written aside, synced, then renamed; a crash at any moment leaves the
last complete ones. Only rank 0 writes. All ranks read, so the folder must be visible to all.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import BaseFileLock, FileLock, Timeout
from torch import Tensor

from melpatch.atomic import lack_of_space, written_aside
from melpatch.config import to_toml
from melpatch.data.manifest import Corpus, Rejected, read_rejected, write_rejected
from melpatch.distributed import is_rank_zero, on_rank_zero, require_same_on_all_ranks
from melpatch.errors import CheckpointError, DataError
from melpatch.faults import remedy
from melpatch.markup import Html, table
from melpatch.only_writer import NO_LOCKS
from melpatch.opening import (
    LOG_BYTES,
    read_json_lines,
    read_text,
    reading,
    require_no_linked_folders,
)
from melpatch.outputs import require_usable_name
from melpatch.progress import notice
from melpatch.training import clip_record
from melpatch.training.checkpoints import Checkpoint, Checkpoints, load_checkpoint, step_of
from melpatch.training.config import RunConfig, read_settings
from melpatch.training.json_lines import JsonLines

COMMAND = "command.toml"
_LOCK = "lock"
_RESTORE = "restore it from a backup"
# Files that a run writes later than config.toml, so that without it they are of something else.
_OF_A_RUN = (
    *("corpus.json", "clips.npy", "environment.json", "metrics.jsonl", "speed.jsonl"),
    *("linear_probe.json", "validation.json", "rejected.csv", "model.safetensors"),
    *("calibration.safetensors", "teacher.safetensors", "source.json", "resume"),
)
# Seconds to wait for another process to release the folder's lock. The decoding processes of a
# killed run inherit its lock, and exit up to 5 s later.
_PATIENCE = 15.0
_PACKAGES = ("melpatch", "torch", "numpy", "soundfile", "soxr", "lightning-fabric", "scikit-learn")


class Run:
    """An open run folder.

    Args:
        folder: where it is.
        config: the resolved settings.

    Attributes:
        rejected: the clips that could not be read, by their location.
        unreadable: keys of those among them that this process was told of; clips of one file share
            a location.
        checkpoints: writes checkpoints and weights in the background.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder
        self.config = config
        self.rejected: dict[str, Rejected] = {}
        self.unreadable: set[int] = set()
        # Number of clips in rejected.csv, which may be fewer while the disk is full.
        self._listed = 0
        self._metrics = JsonLines(folder / "metrics.jsonl")
        self._speed = JsonLines(folder / "speed.jsonl")
        train = config.train
        logs = (self._metrics, self._speed)
        self.checkpoints = Checkpoints(
            folder, logs, keep_last=train.keep_last, keep_every=train.keep_every
        )

    def __repr__(self) -> str:
        objective = type(self.config.objective).__qualname__.removesuffix(".Config")
        encoder = type(self.config.encoder).__qualname__.removesuffix(".Config")
        return (
            f"Run({str(self.folder)!r}, {objective} on {encoder}, {self.config.train.steps} steps)"
        )

    def _repr_html_(self) -> Html:
        steps = self.config.train.steps
        length = f"{self.config.train.epochs:g} epochs" if steps is None else f"{steps:,} steps"
        objective, encoder = (
            type(part).__qualname__.removesuffix(".Config")
            for part in (self.config.objective, self.config.encoder)
        )
        facts = {"objective": objective, "encoder": encoder, "length": length}
        facts["data"] = ", ".join(self.config.data) or "unknown"
        return table([], [*facts.items()], f"Run {self.folder}")

    def __fspath__(self) -> str:
        """Return the folder, so that a run can be given wherever a path can."""
        return str(self.folder)

    def __reduce__(self) -> tuple[type["Run"], tuple[Path, RunConfig]]:
        """Return how a copy is made: it is the same folder, opened again."""
        return type(self), (self.folder, self.config)

    @classmethod
    def create(cls, folder: Path, config: RunConfig, command: Any = None) -> "Run":
        """Create a new run folder.

        Args:
            folder: where; it need not exist.
            config: the resolved settings.
            command: the settings of the command that starts the run, if any.

        Raises:
            CheckpointError: the folder holds a run already, or cannot be written.
        """
        run = cls(folder, config)
        on_rank_zero(lambda: run._begin(command))
        return run

    @staticmethod
    def refuse(folder: Path) -> None:
        """Raise CheckpointError if the folder holds a run already."""
        if (folder / "config.toml").exists():
            raise CheckpointError(
                f"{folder}: holds a run already; add --resume to continue it, or give another --out"
            )
        for name in _OF_A_RUN:
            if (folder / name).exists():
                raise CheckpointError(
                    f"{folder}: holds {name}, which is of no run here and would be written over; "
                    "give another --out"
                )

    @staticmethod
    def require_writable(folder: Path) -> None:
        """Raise CheckpointError if the folder is not writable, or cannot be created."""
        require_usable_name(folder)
        # A new folder is created in the nearest parent that exists.
        candidates = (folder, *folder.absolute().parents)
        existing = next(path for path in candidates if os.access(path, os.F_OK))
        if not existing.is_dir():
            raise CheckpointError(f"{existing}: is a file, not a folder; give another --out")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise CheckpointError(
                f"{existing}: cannot be written; make it writable, or give another --out"
            )

    @classmethod
    def reopen(cls, folder: Path, *, trust_code: bool = False) -> "Run":
        """Open the run in a folder to resume it, with the settings it was started with."""
        run = cls(folder, read_settings(folder, trust_code=trust_code))
        run._read_rejected()
        return run

    def _read_rejected(self) -> None:
        path = self.folder / "rejected.csv"
        if path.exists():
            with reading(path, f"{_RESTORE}, or delete it", LOG_BYTES):
                listed = {clip.path: clip for clip in read_rejected(path)}
            self._listed = len(listed)
            self.rejected = listed | self.rejected

    def remember(self, corpus: Corpus) -> None:
        """Record which clips the run is trained on; a resumed run must be given the same ones.

        Raises:
            CheckpointError: the corpus is not the one the run was started with.
            DataError: the corpus is not the same on all ranks.
        """
        now = clip_record.summary(corpus)
        require_same_on_all_ranks(now, f"the clips of {corpus.shown_name}, their lengths or labels")
        data, labels = self.config.data, self.config.labels
        on_rank_zero(lambda: clip_record.note_clips(self.folder, corpus, data, labels))

    @staticmethod
    def trained_on(folder: Path) -> frozenset[int] | None:
        """Return the identities of a run's training clips; None if they were not recorded."""
        path = folder / clip_record.CLIPS
        if not path.exists():
            return None
        with reading(path, f"{_RESTORE}, or delete it", None):
            identities = np.load(path, allow_pickle=False)
            if identities.dtype != np.int64 or identities.ndim != 1:
                raise ValueError(f"{identities.dtype} of shape {identities.shape}")
            return frozenset(identities.tolist())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock in the body, and record the environment of this start.

        The lock is released when the process ends, even if it is killed.

        Raises:
            CheckpointError: another process trains in the folder.
        """
        lock = FileLock(self.folder / _LOCK)
        on_rank_zero(lambda: require_no_linked_folders(self.folder))
        on_rank_zero(lambda: self._acquire(lock))
        try:
            on_rank_zero(self._note_environment)
            # The previous holder of the lock may have rejected more clips.
            self._read_rejected()
            yield
        finally:
            lock.release()

    def _acquire(self, lock: BaseFileLock) -> None:
        try:
            self._wait_for(lock)
        except Timeout:
            raise CheckpointError(
                f"{self.folder}: another process trains in it; wait until it ends, or stop it; if "
                f"there is none, remove {lock.lock_file}"
            ) from None
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise CheckpointError(
                    f"{self.folder}: cannot be locked ({error.strerror}); {remedy(error)}"
                ) from error
            notice(
                f"{self.folder}: its file system has no locks; make sure that no other process "
                "trains in it"
            )

    def _wait_for(self, lock: BaseFileLock) -> None:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notice(
                f"{self.folder}: another process trains in it; waiting for up to {_PATIENCE:g} s"
            )
            lock.acquire(timeout=_PATIENCE)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl: numbers that a run with equal settings reproduces."""
        if is_rank_zero():
            self._metrics.add(record)

    def log_speed(self, record: Mapping[str, Any]) -> None:
        """Append a line to speed.jsonl."""
        if is_rank_zero():
            self._speed.add(record)

    @staticmethod
    def speed(folder: Path) -> dict[str, Any]:
        """Return the last line of a run's speed.jsonl; empty if there is none yet."""
        path = folder / "speed.jsonl"
        if not path.exists():
            return {}
        with reading(path, f"{_RESTORE}, or take the damaged lines out", LOG_BYTES):
            records = read_json_lines(path)
        return records[-1] if records else {}

    def reject(self, rejected: Iterable[Rejected]) -> None:
        """List unreadable files in rejected.csv, each once; only in memory if the disk is full."""
        for clip in rejected:
            self.rejected.setdefault(clip.path, clip)
            if clip.key is not None:
                self.unreadable.add(clip.key)
        if len(self.rejected) == self._listed or not is_rank_zero():
            return
        try:
            write_rejected(tuple(self.rejected.values()), self.folder / "rejected.csv")
            self._listed = len(self.rejected)
        except (OSError, DataError) as error:
            if lack_of_space(error) is None:
                raise

    def publish(self, weights: Mapping[str, Tensor]) -> None:
        """Make these the weights to use; they are copied, and written while training continues."""
        if is_rank_zero():
            self.checkpoints.publish(weights)

    def save(self, state: Checkpoint, publish: Mapping[str, Tensor] | None = None) -> None:
        """Save a checkpoint, and the weights to use if they change, in the background."""
        if is_rank_zero():
            self.checkpoints.save(state, publish)

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint; None before the first save."""
        return self.checkpoints.newest

    def restore(self) -> Checkpoint | None:
        """Return the newest intact checkpoint and remove the metrics of later steps.

        None before the first save.

        Raises:
            CheckpointError: all checkpoints are damaged.
        """
        newest = on_rank_zero(self._rewind)
        if newest is None:
            return None
        return load_checkpoint(newest)

    def _rewind(self) -> Path | None:
        newest = self.checkpoints.choose()
        step = -1  # without a checkpoint the weights at the start are evaluated again, too
        if newest is not None:
            step = step_of(newest)
        for log in (self._metrics, self._speed):
            log.cut(step)
        return newest

    def _begin(self, command: Any) -> None:
        self.refuse(self.folder)
        self.require_writable(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / _LOCK)
        self._acquire(lock)
        try:
            # Another process may have started a run here meanwhile.
            self.refuse(self.folder)
            # config.toml is written last: a folder that has it is a run.
            for name, settings in ((COMMAND, command), ("config.toml", self.config)):
                if settings is not None:
                    with written_aside(self.folder / name) as aside:
                        aside.write_text(to_toml(settings), encoding="utf-8")
        finally:
            lock.release()

    def _note_environment(self) -> None:
        path = self.folder / "environment.json"
        starts = []
        if path.exists():
            with reading(path, f"{_RESTORE}, or delete it"):
                starts = [*json.loads(read_text(path))]
        starts.append(environment())
        with written_aside(path) as aside:
            aside.write_text(json.dumps(starts, indent=1), encoding="utf-8")


def environment() -> dict[str, Any]:
    """Return versions, machine, command and git commit."""
    gpu = None
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "gpu": gpu,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Return the commit of this checkout of the code; None without a checkout or git."""
    if shutil.which("git") is None:
        return None
    command = ["git", "rev-parse", "HEAD"]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return result.stdout.strip() or None
