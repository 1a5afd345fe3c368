"""Checkpoints that a run resumes from: written while training continues, verified before they are used.

::

    resume/step-000000500/
        model.safetensors      the weights of the objective
        average.safetensors    the running average of weights, where there is one
        optimizer.pt           what the optimiser remembers
        progress.json          steps done, the best score
        SHA256SUMS             of the files above, as ``sha256sum --check`` reads it

Training waits only for a copy of the tensors; a thread writes them. A full disk fails a run only at its last save.
"""

import hashlib
import json
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
from melpatch.errors import CheckpointError
from melpatch.progress import notice
from melpatch.training.json_lines import JsonLines

_SUMS = "SHA256SUMS"


@dataclass
class Progress:
    """Counters and best score of a run."""

    step: int = 0
    skipped: int = 0
    """Steps without a finite loss or gradient, in all."""
    skipped_in_a_row: int = 0
    best: float | None = None
    """Best validation score so far."""
    best_step: int = 0
    averaged: int = 0
    """Number of evaluations whose weights the running average holds."""


@dataclass
class Checkpoint:
    """Everything that a run resumes from."""

    progress: Progress
    model: Mapping[str, Tensor]
    """Weights of the objective."""
    optimizer: Mapping[str, Any]
    """The optimiser's ``state_dict``."""
    average: Mapping[str, Tensor] = field(default_factory=dict)
    """Running average of the weights; empty if there is none yet."""


class Checkpoints:
    """The checkpoints of a run, the weights to use, and the thread that writes both.

    As a context manager it waits on exit until every process has written everything; a last save that did not fit on
    the disk is then an error.

    Args:
        folder: of the run.
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
        # Weights that did not fit on the disk yet; only the thread touches them.
        self._unpublished: Mapping[str, Tensor] | None = None
        self._refused: OSError | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error of the body comes first; one of a write must not replace it.
        if kind is not None:
            futures.wait(self._pending.values())
            return
        self.wait()
        if self._refused is not None:
            raise CheckpointError(
                f"{self._refused.filename or self.folder}: no room for the last weights ({self._refused.strerror}); "
                "free some space, then go on with --resume"
            )
        # torchrun stops rank 0 when other ranks have exited, so they wait for its writes.
        distributed.barrier()

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint, which may be damaged; None before the first save."""
        return max(self._all(), key=step_of, default=None)

    def publish(self, weights: Mapping[str, Tensor]) -> None:
        """Write the weights to use in the background; if the disk is full, every save tries again."""
        self._settle("publish")
        self._pending["publish"] = self._thread.submit(self._write, None, copied(weights))

    def save(self, state: Checkpoint, publish: Mapping[str, Tensor] | None = None) -> None:
        """Write a checkpoint in the background, after the one before it; then remove those not to be kept.

        Args:
            state: what the run resumes from.
            publish: the weights to use, if they change; written before the checkpoint, since no later save would write
                them again after the last one.

        Raises:
            CheckpointError: the checkpoint before it could not be written for another reason than lack of space.
        """
        self._settle("save")
        own = Checkpoint(
            replace(state.progress),
            copied(state.model),
            copied(state.optimizer),
            copied(state.average),
        )
        weights = own.model if publish is state.model else copied(publish)
        self._pending["save"] = self._thread.submit(self._write, own, weights)

    def check(self) -> None:
        """Raise the error of a write that has failed by now."""
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
        """Return the newest intact checkpoint, and remove what a crash left behind; None before the first save.

        Raises:
            CheckpointError: there are checkpoints, but all are damaged.
        """
        clear_partial(self.folder)
        clear_partial(self.folder / "resume")
        damaged: list[Path] = []
        for checkpoint in sorted(self._all(), key=step_of, reverse=True):
            wrong = _damage(checkpoint)
            if wrong is None:
                for newer in damaged:  # or it would be counted among those to keep
                    discard(newer)
                return checkpoint
            notice(f"{checkpoint}: damaged ({wrong}); going on from the state before it")
            damaged.append(checkpoint)
        if damaged:
            raise CheckpointError(
                f"{self.folder / 'resume'}: none of its {len(damaged)} states is whole; take one from a backup, or "
                "remove the folder to train from the start"
            )
        return None

    def _all(self) -> list[Path]:
        return list((self.folder / "resume").glob("step-*"))

    def _write(self, state: Checkpoint | None, publish: Mapping[str, Tensor] | None) -> None:
        """Write the weights to use if they have changed, and a checkpoint if one is given."""
        if publish is not None:
            self._unpublished = publish
        try:
            if self._unpublished is not None:
                with written_aside(self.folder / "model.safetensors") as aside:
                    write_weights(aside, self._unpublished)
                self._unpublished = None
            if state is not None:
                for log in self.logs:
                    log.flush()  # a state without the lines before it would leave a gap
                clear_partial(self.folder / "resume")  # what could not be removed takes room
                target = self.folder / "resume" / f"step-{state.progress.step:09d}"
                with written_aside(target) as aside:
                    _put(aside, state)
                self._drop_older(target)
            self._refused = None
        except (OSError, RuntimeError) as error:
            self._refused = lack_of_space(error)
            if self._refused is None:
                raise self._told(error) from error
            notice(
                f"{self._refused.filename or self.folder}: no room to save ({self._refused.strerror}); the run goes "
                "on, and the next save tries again; free some space"
            )

    def _told(self, error: OSError | RuntimeError) -> Exception:
        """Return the error for a write that failed for another reason than lack of space."""
        if not isinstance(error, OSError):
            return error
        return CheckpointError(
            f"{error.filename or self.folder}: cannot be written ({error.strerror}); mend the disk, or make the folder "
            "writable, then go on with --resume"
        )

    def _drop_older(self, target: Path) -> None:
        for each in sorted(self._all(), key=step_of)[: -self.keep_last]:
            if each != target and not (self.keep_every and step_of(each) % self.keep_every == 0):
                discard(each)


def step_of(folder: Path) -> int:
    """Return the step at which a checkpoint was saved, from the name of its folder."""
    return int(folder.name.removeprefix("step-"))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load a checkpoint that :meth:`Checkpoints.choose` has verified."""
    average = folder / "average.safetensors"
    return Checkpoint(
        Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8"))),
        load_weights(folder / "model.safetensors"),
        torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True),
        load_weights(average) if average.exists() else {},
    )


def _put(folder: Path, state: Checkpoint) -> None:
    folder.mkdir(parents=True)
    write_weights(folder / "model.safetensors", state.model)
    if state.average:
        write_weights(folder / "average.safetensors", state.average)
    with (folder / "optimizer.pt").open(
        "wb"
    ) as file:  # torch tells no reason where it opens the file itself
        torch.save(state.optimizer, file)
    (folder / "progress.json").write_text(json.dumps(asdict(state.progress)), encoding="utf-8")
    sums = [f"{_sum(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / _SUMS).write_text("".join(sums), encoding="utf-8")


def _damage(folder: Path) -> str | None:
    """Return in words what is wrong with a checkpoint; None if it is intact."""
    try:
        sums = dict(
            line.split("  ")[::-1]
            for line in (folder / _SUMS).read_text(encoding="utf-8").splitlines()
        )
        for name in sorted(sums.keys() | {"model.safetensors", "optimizer.pt", "progress.json"}):
            if _sum(folder / name) != sums.get(name):
                return f"{name} does not match {_SUMS}"
    except OSError as error:
        return f"{Path(error.filename or _SUMS).name}: {error.strerror}"
    except ValueError:  # not text, or not such lines
        return f"{_SUMS} cannot be read"
    return None


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
