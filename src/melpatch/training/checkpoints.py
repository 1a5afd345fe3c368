"""Checkpoints to resume from: written in the background, verified before they are used.

::

    resume/step-000000500/
        model.safetensors      weights of the objective
        average.safetensors    running average of the weights, if there is one
        optimizer.pt           state of the optimiser
        progress.json          steps done, the best score
        SHA256SUMS             checksums of the files above, for ``sha256sum --check``

Training waits only for a copy of the tensors; a thread writes them. A full disk fails a run only
at its last save.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent import futures
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melpatch import distributed
from melpatch.atomic import clear_partial, discard, lack_of_space, written_aside
from melpatch.checkpoint import copied, load_weights, write_weights
from melpatch.config import from_dict
from melpatch.errors import CheckpointError
from melpatch.faults import let_pass, remedy
from melpatch.opening import (
    SETTINGS_BYTES,
    read_json,
    read_text,
    reading,
    require_no_bomb,
    require_regular,
)
from melpatch.progress import notice
from melpatch.training.json_lines import JsonLines

_SUMS = "SHA256SUMS"
_STEP = "step-"
_STEP_NAME = re.compile(r"step-[0-9]{1,18}")


@dataclass
class Progress:
    """Counters and best score of a run."""

    step: int = 0
    skipped: int = 0
    """Steps without a finite loss or gradient."""
    skipped_in_a_row: int = 0
    """Such steps since the last one that was taken."""
    best: float | None = None
    """Best validation score so far."""
    best_step: int = 0
    """Step of the best score."""
    averaged: int = 0
    """Number of evaluations whose weights are in the running average."""


@dataclass
class Checkpoint:
    """Everything that a run resumes from."""

    progress: Progress
    """Counters and best score."""
    model: Mapping[str, Tensor]
    """Weights of the objective."""
    optimizer: Mapping[str, Any]
    """The optimiser's ``state_dict``."""
    average: Mapping[str, Tensor] = field(default_factory=dict)
    """Running average of the weights; empty if there is none yet."""


class Checkpoints:
    """The checkpoints of a run, its final weights, and the thread that writes both.

    As a context manager it waits on exit until every rank has written everything. If the last save
    did not fit on the disk, the exit raises a CheckpointError.

    Args:
        folder: the run folder.
        logs: files whose lines must be on the disk before a checkpoint is.
        keep_last: number of newest checkpoints that are kept.
        keep_every: checkpoints at multiples of this step are kept for good.
    """

    def __init__(
        self,
        folder: Path,
        logs: Sequence[JsonLines] = (),
        *,
        keep_last: int = 2,
        keep_every: int | None = None,
    ) -> None:
        self.folder = folder
        self.logs = logs
        self.keep_last = keep_last
        self.keep_every = keep_every
        self._thread = futures.ThreadPoolExecutor(1, "saving")
        self._pending: dict[str, futures.Future[None]] = {}
        # Only the saving thread writes these two: weights that did not fit on the disk yet, and
        # the error of the last write if the disk was full.
        self._unpublished: Mapping[str, Tensor] | None = None
        self._disk_full: OSError | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error in the body is not replaced by an error of a write.
        if kind is not None:
            futures.wait(self._pending.values())
            return
        self.wait()
        if self._disk_full is not None:
            raise CheckpointError(
                f"{self._disk_full.filename or self.folder}: no room for the last weights "
                f"({self._disk_full.strerror}); {remedy(self._disk_full)}"
            )
        # torchrun stops rank 0 when other ranks have exited, so they wait for its writes.
        distributed.barrier()

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint, which may be damaged; None before the first save."""
        return max(self._all(), key=step_of, default=None)

    def publish(self, weights: Mapping[str, Tensor]) -> None:
        """Write the weights to use in the background; if the disk is full, later saves retry."""
        self._settle("publish")
        self._pending["publish"] = self._thread.submit(self._write, None, copied(weights))

    def save(self, state: Checkpoint, publish: Mapping[str, Tensor] | None = None) -> None:
        """Write a checkpoint in the background, then remove those that need not be kept.

        It waits for the previous checkpoint to be written.

        Args:
            state: what the run resumes from.
            publish: the weights to use, if they change; written before the checkpoint, since no
                later save would write them again after the last one.

        Raises:
            CheckpointError: the previous checkpoint could not be written, for another reason than
                lack of space.
        """
        self._settle("save")
        # The thread writes copies, so that training can go on changing the tensors in place.
        snapshot = Checkpoint(
            replace(state.progress),
            copied(state.model),
            copied(state.optimizer),
            copied(state.average),
        )
        if publish is state.model:
            weights = snapshot.model
        else:
            weights = copied(publish)
        self._pending["save"] = self._thread.submit(self._write, snapshot, weights)

    def check(self) -> None:
        """Raise the error of a write that has failed so far; does not wait."""
        for kind in [kind for kind, writing in self._pending.items() if writing.done()]:
            self._settle(kind)

    def wait(self) -> None:
        """Wait until everything is written; raise the error of a write that failed."""
        for kind in list(self._pending):
            self._settle(kind)

    def _settle(self, kind: str) -> None:
        writing = self._pending.pop(kind, None)
        if writing is not None:
            writing.result()

    def choose(self) -> Path | None:
        """Return the newest intact checkpoint and remove what a crash left; None if there is none.

        Raises:
            CheckpointError: there are checkpoints, but all are damaged.
        """
        clear_partial(self.folder)
        clear_partial(self.folder / "resume")
        damaged: list[Path] = []
        for checkpoint in sorted(self._all(), key=step_of, reverse=True):
            damage = _damage(checkpoint)
            if damage is None:
                # Damaged checkpoints would otherwise count among the newest to keep.
                for newer in damaged:
                    discard(newer)
                return checkpoint
            notice(f"{checkpoint}: damaged ({damage}); trying the checkpoint before it")
            damaged.append(checkpoint)
        if damaged:
            raise CheckpointError(
                f"{self.folder / 'resume'}: none of its {len(damaged)} checkpoints is intact; "
                "restore one from a backup, or remove the folder to train from the start"
            )
        return None

    def _all(self) -> list[Path]:
        # A folder of another name was not written here.
        folders = (self.folder / "resume").glob(f"{_STEP}*")
        return [folder for folder in folders if _STEP_NAME.fullmatch(folder.name)]

    def _write(self, state: Checkpoint | None, publish: Mapping[str, Tensor] | None) -> None:
        """Write the weights to use if they have changed, and a checkpoint if there is one.

        Runs in the saving thread. A full disk is noted and printed; the next save tries again.
        """
        if publish is not None:
            self._unpublished = publish
        try:
            if self._unpublished is not None:
                with written_aside(self.folder / "model.safetensors") as aside:
                    write_weights(aside, self._unpublished)
                self._unpublished = None
            if state is not None:
                self._write_checkpoint(state)
            self._disk_full = None
        except (OSError, RuntimeError) as error:
            self._disk_full = lack_of_space(error)
            if self._disk_full is None:
                raise self._write_error(error) from error
            notice(
                f"{self._disk_full.filename or self.folder}: no room to save "
                f"({self._disk_full.strerror}); the run continues, and the next save tries again; "
                "free some space"
            )

    def _write_checkpoint(self, state: Checkpoint) -> None:
        # Resuming from a checkpoint without the log lines before it would leave a gap in the logs.
        for log in self.logs:
            log.flush()
        # Old checkpoints that could not be removed earlier still take up space.
        clear_partial(self.folder / "resume")
        target = self.folder / "resume" / f"step-{state.progress.step:09d}"
        with written_aside(target) as aside:
            _write_files(aside, state)
        self._remove_old(target)

    def _write_error(self, error: OSError | RuntimeError) -> Exception:
        """Return the error for a write that failed for another reason than lack of space."""
        if not isinstance(error, OSError):
            return error
        return CheckpointError(
            f"{error.filename or self.folder}: cannot be written ({error.strerror}); {remedy(error)}"
        )

    def _remove_old(self, target: Path) -> None:
        """Remove all checkpoints but the newest, those kept for good, and the one just written."""
        for checkpoint in sorted(self._all(), key=step_of)[: -self.keep_last]:
            kept = self.keep_every is not None and step_of(checkpoint) % self.keep_every == 0
            if checkpoint != target and not kept:
                discard(checkpoint)


def step_of(folder: Path) -> int:
    """Return the step at which a checkpoint was saved, from the name of its folder."""
    return int(folder.name.removeprefix(_STEP))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load a checkpoint that :meth:`Checkpoints.choose` has verified."""
    fix = "restore the folder from a backup, or remove it to go on from the checkpoint before it"
    with reading(folder / "progress.json", fix):
        progress = from_dict(Progress, read_json(folder / "progress.json"), "progress")
    average: dict[str, Tensor] = {}
    if (folder / "average.safetensors").exists():
        average = load_weights(folder / "average.safetensors")
    return Checkpoint(
        progress,
        load_weights(folder / "model.safetensors"),
        _load_optimizer(folder / "optimizer.pt", fix),
        average,
    )


def _load_optimizer(path: Path, fix: str) -> dict[str, Any]:
    """Return the state of an optimiser; nothing but plain data and tensors is read."""
    with reading(path, fix, None):
        require_no_bomb(path)
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        # Whatever stands in a file that torch did not write.
        except Exception as error:
            raise ValueError(str(error).strip().split("\n")[0]) from error
        return {**loaded}


def _write_files(folder: Path, state: Checkpoint) -> None:
    """Write the files of a checkpoint, and last their checksums."""
    folder.mkdir(parents=True)
    write_weights(folder / "model.safetensors", state.model)
    if state.average:
        write_weights(folder / "average.safetensors", state.average)
    # If torch opened the file itself, its error would not say why it cannot be written.
    with (folder / "optimizer.pt").open("wb") as file:
        torch.save(state.optimizer, file)
    (folder / "progress.json").write_text(json.dumps(asdict(state.progress)), encoding="utf-8")
    sums = [f"{_sum(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / _SUMS).write_text("".join(sums), encoding="utf-8")


def _damage(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint, for a message; None if it is intact."""
    try:
        # Each line is "checksum  name".
        lines = read_text(folder / _SUMS).splitlines()
        sums = dict(line.split("  ")[::-1] for line in lines)
        for name in sorted(sums.keys() | {"model.safetensors", "optimizer.pt", "progress.json"}):
            if _sum(folder / name) != sums.get(name):
                return f"{name} does not match {_SUMS}"
    except OSError as error:
        # A checkpoint that is taken for damaged may be removed.
        let_pass(error)
        return f"{Path(error.filename or _SUMS).name}: {error.strerror}"
    except ValueError:
        # The file is not text, or its lines are not in that format.
        return f"{_SUMS} cannot be read"
    return None


def _sum(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    # The largest of the others are as large as the model, whose size is not known here.
    require_regular(path, SETTINGS_BYTES if path.suffix == ".json" else None)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
