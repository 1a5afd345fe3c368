"""Label recordings of any length."""

import csv
from dataclasses import dataclass
from pathlib import Path

import tyro

from melpatch.checkpoint import written_aside
from melpatch.commands.base import recordings
from melpatch.config import check
from melpatch.data.manifest import Rejected, write_rejected
from melpatch.errors import AudioError, ConfigError, DataError
from melpatch.model import Prediction, load
from melpatch.objectives.classify import Classify
from melpatch.progress import notice, track


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to label, and where to write it."""

    run: tyro.conf.Positional[Path]
    """Run folder of a classifier."""
    recordings: tyro.conf.Positional[tuple[str, ...]]
    """Audio files, or folders of them."""
    out: Path
    """CSV to write: path, start and end in seconds, label, probability, then one column per class."""
    hop: float | None = None
    """Seconds between the starts of windows, each as long as the segments that the classifier was trained on
    (melpatch finetune --seconds); without, one line per recording."""
    threshold: float = 0.5
    """Probability from which a label of a multi-label model counts."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.hop is None or self.hop > 0, "hop", self.hop, "seconds above 0")
        check(0 <= self.threshold <= 1, "threshold", self.threshold, "0 to 1")


def run(config: Config) -> None:
    """Write predictions as they are made; unreadable files are named beside them."""
    model = load(config.run)
    if not isinstance(model.objective, Classify):
        raise ConfigError(
            f"{config.run}: has no labels to predict; fine-tune it first with melpatch finetune --init {config.run}"
        )
    multi = model.objective.config.multi_label
    files = recordings(config.recordings)
    rejected: list[Rejected] = []
    with written_aside(config.out) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "start", "end", "label", "probability", *model.labels])
        for path in track(files, len(files), "predicting"):
            try:
                found = model.predict(path) if config.hop is None else model.predict_windows(path, hop=config.hop)
                for one in found:  # written one by one: a recording may last for days
                    writer.writerow([path, *_cells(one, config.threshold if multi else None)])
            except AudioError as error:
                rejected.append(Rejected(str(path), error.reason))
    finish(config.out, len(files), rejected)


def _cells(one: Prediction, threshold: float | None) -> list[str]:
    """Return start, end, label, probability and all probabilities; several labels where there is a threshold."""
    numbers = [f"{value:.6g}" for value in one.probabilities.values()]
    heard = [one.label]
    if threshold is not None:
        heard = [name for name, value in one.probabilities.items() if value >= threshold]
    return [f"{one.start:.3f}", f"{one.end:.3f}", ";".join(heard), f"{one.probabilities[one.label]:.6g}", *numbers]


def finish(out: Path, count: int, rejected: list[Rejected]) -> None:
    """Say what was written, and name the files that could not be read.

    Raises:
        DataError: none could.
    """
    if rejected:
        write_rejected(tuple(rejected), out.with_name(f"{out.stem}.rejected.csv"))
        notice(f"{len(rejected)} of {count} files cannot be read; see {out.with_name(f'{out.stem}.rejected.csv')}")
    if len(rejected) == count:
        raise DataError(f"none of the {count} files can be read; the first: {rejected[0].path} ({rejected[0].reason})")
    notice(f"{count - len(rejected)} files done: {out}")
