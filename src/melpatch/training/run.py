"""The run folder is the whole truth: settings, metrics, weights, and what a resumed run needs.

::

    command.toml        the settings of the command, as they were asked for
    config.toml         the resolved settings; reloadable
    corpus.json         how many clips, and a hash that tells a changed corpus
    clips.npy           the marks of these clips, sorted: what the run was trained on
    environment.json    versions, machine, command, git commit, one entry per start
    metrics.jsonl       what was measured, a pure function of settings and data: equal runs give equal files
    speed.jsonl         what was timed, since the start of the run, whatever interrupted it
    rejected.csv        clips that could not be read
    model.safetensors   the weights to use
    lock                held by the process that trains
    resume/step-N/      the newest complete checkpoints of the run, see :mod:`melpatch.training.checkpoints`

Weights and checkpoints are written aside, synced, then renamed; a crash at any moment leaves the last complete ones.
Only rank 0 writes; all ranks read, so that the folder must be visible to all of them.
"""

import errno
import hashlib
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
from melpatch.config import from_toml, to_toml
from melpatch.data.clip import Clip
from melpatch.data.manifest import Corpus, Rejected, read_rejected, write_rejected
from melpatch.distributed import is_rank_zero, on_rank_zero, require_same_on_all_ranks
from melpatch.errors import CheckpointError, DataError
from melpatch.progress import notice
from melpatch.training.checkpoints import Checkpoint, Checkpoints, load_checkpoint, step_of
from melpatch.training.config import RunConfig
from melpatch.training.json_lines import JsonLines

COMMAND = "command.toml"
_CLIPS = "clips.npy"
# Seconds for another training to let go of the folder: the decoding processes of one that was killed, which inherited
# its lock, notice up to 5 s later.
_PATIENCE = 15.0
_NO_LOCKS = {
    errno.ENOLCK,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EINVAL,
}  # what file systems say that know none
_PACKAGES = ("melpatch", "torch", "numpy", "soundfile", "soxr", "lightning-fabric", "scikit-learn")


class Run:
    """An open run folder."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder
        self.config = config
        self.rejected: dict[str, Rejected] = {}
        self._listed = 0
        self._metrics = JsonLines(folder / "metrics.jsonl")
        self._speed = JsonLines(folder / "speed.jsonl")
        train = config.train
        logs = (self._metrics, self._speed)
        self.checkpoints = Checkpoints(
            folder, logs, keep_last=train.keep_last, keep_every=train.keep_every
        )

    def __fspath__(self) -> str:
        """Return the folder, so that a run can be given wherever a path can."""
        return str(self.folder)

    @classmethod
    def create(cls, folder: Path, config: RunConfig, command: Any = None) -> "Run":
        """Start a new run.

        Args:
            folder: where; it need not exist.
            config: the resolved settings.
            command: the settings of the command that starts it, if it is one.

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
                f"{folder}: holds a run already; add --resume to go on with it, or give another --out"
            )

    @staticmethod
    def require_writable(folder: Path) -> None:
        """Raise CheckpointError if nothing can be written to the folder, or no such folder can be made."""
        there = next(
            each for each in (folder, *folder.absolute().parents) if os.access(each, os.F_OK)
        )
        if not there.is_dir():
            raise CheckpointError(f"{there}: is a file, not a folder; give another --out")
        if not os.access(there, os.W_OK | os.X_OK):
            raise CheckpointError(
                f"{there}: cannot be written; make it writable, or give another --out"
            )

    @classmethod
    def reopen(cls, folder: Path) -> "Run":
        """Open the run in a folder to resume it, with the settings it was started with."""
        run = cls(folder, from_toml(RunConfig, folder / "config.toml"))
        run._read_rejected()
        return run

    def _read_rejected(self) -> None:
        path = self.folder / "rejected.csv"
        if path.exists():
            listed = {clip.path: clip for clip in read_rejected(path)}
            self._listed, self.rejected = len(listed), listed | self.rejected

    def remember(self, corpus: Corpus) -> None:
        """Record which clips the run is trained on; a resumed run must be given the same ones.

        Raises:
            CheckpointError: the corpus is not the one the run was started with.
            DataError: it is not the same in all processes.
        """
        known = sorted((clip.key, clip.start, clip.duration, clip.labels) for clip in corpus.clips)
        require_same_on_all_ranks(known, f"the clips of {corpus.name}, their lengths or labels")
        on_rank_zero(lambda: self._remember(known, corpus.clips))

    def _remember(
        self, known: list[tuple[int, float, float, tuple[str, ...]]], clips: Iterable[Clip]
    ) -> None:
        path = self.folder / "corpus.json"
        now = {"clips": len(known), "sha256": hashlib.sha256(repr(known).encode()).hexdigest()}
        if not path.exists():
            with written_aside(self.folder / _CLIPS) as aside, aside.open("wb") as file:
                np.save(
                    file,
                    np.unique(
                        np.array(
                            [mark for clip in clips for mark in clip.identities], dtype=np.int64
                        )
                    ),
                )
            with written_aside(path) as aside:
                aside.write_text(json.dumps(now), encoding="utf-8")
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != now:
            raise CheckpointError(
                f"{self.folder}: was started on other clips, or other lengths or labels of them "
                f"({before['clips']} clips then, {now['clips']} now); "
                "restore the corpus, or start a new run with another --out"
            )

    @staticmethod
    def trained_on(folder: Path) -> frozenset[int] | None:
        """Return the marks of the clips that the run in a folder was trained on; None where there is no note."""
        path = folder / _CLIPS
        if not path.exists():
            return None
        return frozenset(np.load(path).tolist())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock for the body of a ``with``, and record the environment of this start.

        The lock ends with the process, however the process ends.

        Raises:
            CheckpointError: another process trains in it.
        """
        lock = FileLock(self.folder / "lock")
        on_rank_zero(lambda: self._acquire(lock))
        try:
            self._read_rejected()  # which the one before may have added to
            yield
        finally:
            lock.release()

    def _acquire(self, lock: BaseFileLock) -> None:
        try:
            self._wait_for(lock)
        except Timeout:
            raise CheckpointError(
                f"{self.folder}: another process trains in it; wait for its end, or stop it; if there is none, remove "
                f"{lock.lock_file}"
            ) from None
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise CheckpointError(
                    f"{self.folder}: cannot be locked ({error.strerror}); make it writable"
                ) from error
            notice(
                f"{self.folder}: its file system has no locks; see to it that no two trainings write to it"
            )
        self._note_environment()

    def _wait_for(self, lock: BaseFileLock) -> None:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notice(
                f"{self.folder}: another process trains in it; waiting for up to {_PATIENCE:g} s"
            )
            lock.acquire(timeout=_PATIENCE)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl: numbers that an equal run would reproduce."""
        if is_rank_zero():
            self._metrics.add(record)

    def log_speed(self, record: Mapping[str, Any]) -> None:
        """Append a line to speed.jsonl."""
        if is_rank_zero():
            self._speed.add(record)

    @staticmethod
    def speed(folder: Path) -> dict[str, Any]:
        """Return the last line of a run's speed.jsonl; nothing where none is there yet."""
        path = folder / "speed.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return dict(json.loads(lines[-1])) if lines else {}

    def reject(self, rejected: Iterable[Rejected]) -> None:
        """List unreadable files in rejected.csv, each once; while the disk is full, in memory."""
        self.rejected |= {clip.path: clip for clip in rejected if clip.path not in self.rejected}
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
        """Return the newest intact checkpoint, None before the first save; drop metrics written after it.

        Raises:
            CheckpointError: all checkpoints are damaged.
        """
        newest = on_rank_zero(self._rewind)
        return None if newest is None else load_checkpoint(newest)

    def _rewind(self) -> Path | None:
        newest = self.checkpoints.choose()
        step = 0 if newest is None else step_of(newest)
        for log in (self._metrics, self._speed):
            log.cut(step)
        return newest

    def _begin(self, command: Any) -> None:
        self.refuse(self.folder)
        self.require_writable(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            COMMAND: command,
            "config.toml": self.config,
        }  # in this order: the latter makes it a run
        for name, each in settings.items():
            if each is not None:
                with written_aside(self.folder / name) as aside:
                    aside.write_text(to_toml(each), encoding="utf-8")

    def _note_environment(self) -> None:
        path = self.folder / "environment.json"
        starts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        starts.append(environment())
        with written_aside(path) as aside:
            aside.write_text(json.dumps(starts, indent=1), encoding="utf-8")


def environment() -> dict[str, Any]:
    """Return versions, machine, command and git commit."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Return the commit that this code is checked out at; None where there is no checkout, or no git."""
    if shutil.which("git") is None:
        return None
    asked = ["git", "rev-parse", "HEAD"]
    result = subprocess.run(
        asked, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return result.stdout.strip() or None
