"""How far a run has come."""

from pathlib import Path

from melpatch.training.config import RunConfig
from melpatch.training.run import Run


def describe_unfinished(folder: Path, config: RunConfig) -> str | None:
    """Return a sentence if a run has not come to its last step; None if it has, or nothing tells.

    Args:
        folder: the run folder. Without a speed.jsonl, which every evaluation and save adds a line
            to, nothing tells how far it is: a probe that was kept made no step.
        config: its settings.

    Raises:
        CheckpointError: speed.jsonl is damaged.
    """
    step = Run.speed(folder).get("step")
    total = config.train.steps
    if step is None or total is None or step >= total:
        return None
    return (
        f"{folder} is unfinished: these are its weights after step {step} of {total} or before; "
        "to finish it, run the command that started it with --resume"
    )
