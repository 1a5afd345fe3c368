"""Runs that diverge: steps without a finite loss, and weights or outputs that are no numbers."""

from itertools import chain

from melpatch import distributed
from melpatch.counted import counted
from melpatch.data.clip import Batch
from melpatch.errors import MelpatchError
from melpatch.objectives.base import Objective
from melpatch.training.checkpoints import Progress
from melpatch.training.run import Run
from melpatch.training.stepping import weights_are_finite


def note_skipped(run: Run, progress: Progress, batches: list[Batch]) -> None:
    """Count and log a step without a finite loss or gradient, with the keys of its clips.

    A collective call.

    Raises:
        MelpatchError: ``nonfinite_limit`` steps in a row were skipped.
    """
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    own_keys = [key for batch in batches for key in batch.keys.tolist()]
    keys = list(chain.from_iterable(distributed.all_gather_objects(own_keys)))
    run.log({"step": progress.step, "skipped": True, "clip_keys": keys})
    limit = run.config.train.nonfinite_limit
    if progress.skipped_in_a_row >= limit:
        raise MelpatchError(
            f"{run.folder}: no finite loss or gradient in {counted(limit, 'step')} in a row; the clips' keys "
            f"are in metrics.jsonl; lower --lr, which is {run.config.train.lr:g}, use --precision "
            "32-true, or look at those clips"
        )


def require_convergence(run: Run, objective: Objective, progress: Progress, total: int) -> None:
    """Raise MelpatchError if a run has diverged, whose weights are neither scored nor saved.

    That is so if the weights are no longer finite, or if a short run, too short for the limit of
    skipped steps, has skipped its last half. A collective call.
    """
    problem = ""
    if not weights_are_finite(objective):
        problem = f"at step {progress.step} the weights are no longer finite numbers"
    elif progress.step == total and progress.skipped_in_a_row >= max(1, total // 2):
        problem = f"none of the last {counted(progress.skipped_in_a_row, 'step')} had a finite loss"
    if problem:
        raise diverged(run, problem)


def diverged(run: Run, problem: str) -> MelpatchError:
    """Return the error of a run that has diverged."""
    return MelpatchError(
        f"{run.folder}: diverged: {problem}; lower --lr, which is {run.config.train.lr:g}, "
        "lengthen --lr-warmup, or use --precision 32-true"
    )
