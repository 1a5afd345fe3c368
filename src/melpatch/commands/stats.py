"""Measure mean and standard deviation of the log-mel spectrograms of a corpus."""

import json
from dataclasses import dataclass, field

import tyro

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.loader import LoaderConfig
from melpatch.progress import console
from melpatch.training.config import RunConfig
from melpatch.training.start import measured
from melpatch.workflows.corpus import read_corpus, without_splits


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which corpus to measure, with which front end."""

    data: tyro.conf.Positional[tuple[str, ...]]
    """Folders of audio, CSV files with the header path,label,split, and shards (melpatch pack) here or by their URL."""
    split_column: str = "split"
    """Column of the CSV that holds the split or fold."""
    exclude_splits: tuple[str, ...] | None = None
    """Splits or folds to leave out; by default val and test, where they exist."""
    clips: int | None = None
    """Number of clips to measure, chosen at random; by default all."""
    seconds: float = 10.0
    """Longest segment of a clip that is measured, in seconds."""
    seed: int = 0
    """Seed of the choice of clips and segments."""
    front_end: LogMel.Config = field(default_factory=LogMel.Config)
    """Waveform to spectrogram."""
    json: bool = False
    """Print JSON for scripts."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.clips is None or self.clips >= 1, "clips", self.clips, "1 or more")


def run(config: Config) -> None:
    """Print mean and std over all valid frames, as flags for the other commands."""
    settings = RunConfig(
        data=config.data,
        split_column=config.split_column,
        seed=config.seed,
        front_end=config.front_end,
        loader=LoaderConfig(seconds=config.seconds),
    )
    corpus = without_splits(read_corpus(settings), config.exclude_splits)
    count = min(config.clips or len(corpus.clips), len(corpus.clips))
    front = measured(settings, corpus, count).front_end
    if config.json:
        console().print_json(json.dumps({"mean": front.mean, "std": front.std, "clips": count}))
    else:
        console().print(
            f"--front-end.mean {front.mean} --front-end.std {front.std}   ({count} clips of {corpus.name})"
        )
