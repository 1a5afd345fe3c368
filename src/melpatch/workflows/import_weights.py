"""Make a run of a model of other code."""

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from melpatch.config import check
from melpatch.default_dtype import float32_by_default
from melpatch.errors import CheckpointError, ConfigError
from melpatch.interop.base import Axes, Reading
from melpatch.progress import notice
from melpatch.training.foreign import Given, open_foreign
from melpatch.training.run import Run


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Which model to import, what its file does not say, and where to write the run."""

    init: tyro.conf.Positional[str]
    """Classifier or encoder of other code: a folder of Hugging Face, hf:owner/name (a Hub
    repository), or a weight file."""
    out: Path
    """Run folder to write."""
    labels: Path | None = None
    """Class list: one name a line, or AudioSet's class_labels_indices.csv; by default the names in
    the file, or else numbers."""
    multi_label: bool | None = None
    """Whether a clip may have several labels, so that each has a sigmoid; by default as the file or
    the family says, else if there are AudioSet's 527 classes."""
    pooling: str | None = None
    """Tokens to the vector before the head, as for melpatch embed; by default the family's."""
    init_axes: Axes | None = None
    """Axes of the spectrograms that the weights saw, slower one first; none: their family's."""
    num_heads: int | None = None
    """Attention heads, of a width that is not a published one."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        heads = self.num_heads
        check(heads is None or heads >= 1, "num_heads", heads, "1 or more")


@float32_by_default()
def import_weights(config: ImportConfig) -> Run:
    """Write the run of a model of other code: a classifier that predicts the same, or else an encoder.

    Raises:
        CheckpointError: the folder holds a run already or cannot be written, or the file cannot be
            read.
        ConfigError: the file is of no known family, or does not say all that a run needs.
    """
    if (config.out / "config.toml").exists():
        raise CheckpointError(
            f"{config.out}: holds a run already, which is not replaced; give another --out"
        )
    if Path(config.init, "config.toml").exists():
        raise ConfigError(f"{config.init}: is a run already, which every command takes as it is")
    Run.require_writable(config.out)
    given = Given.of(config.labels, config.multi_label)
    reading = Reading(axes=config.init_axes, num_heads=config.num_heads)
    model = open_foreign(config.init, replace(given, pooling=config.pooling, reading=reading))
    run = Run.create(config.out, model.config, config)
    with run.locked(), run.checkpoints:
        model.source.write(run.folder)
        run.publish(model.objective.state_dict())
    notice(str(model.source))
    use = "predict" if model.config.labels else "embed"
    notice(f"done: {run.folder}; melpatch {use} {run.folder} RECORDINGS --out FILE")
    return run
