"""Measure mean and standard deviation of the log-mel spectrograms of a corpus."""

from dataclasses import dataclass, field

import tyro

from melpatch.audio.files import Channel
from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.counted import agreeing, counted
from melpatch.data.loader import LoaderConfig
from melpatch.progress import console, notice, show_json
from melpatch.training.config import RunConfig
from melpatch.training.start import statistics
from melpatch.workflows.corpus import read_corpus, tell_about_sound, without_splits


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which corpus to measure, with which front end."""

    data: tyro.conf.Positional[tuple[str, ...]]
    """Folders of audio, CSV files with the header path,label,split, shards (melpatch pack) here or
    by their URL, and data of others (docs/data.md)."""
    split_column: str = "split"
    """Column of the CSV that holds the split or fold."""
    channel: Channel = "mean"
    """Of several channels: their mean, the left or right one, or the loudest of each file."""
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
        channel=config.channel,
        seed=config.seed,
        front_end=config.front_end,
        loader=LoaderConfig(seconds=config.seconds),
    )
    corpus = without_splits(read_corpus(settings), config.exclude_splits)
    count = min(config.clips or len(corpus.clips), len(corpus.clips))
    tell_about_sound(corpus, settings)
    values = statistics(settings, corpus, count)
    if values.clips < count:
        left_out = count - values.clips
        notice(
            f"{left_out} of {counted(count, 'clip')} cannot be read and "
            f"{agreeing(left_out, 'is', 'are')} not measured; melpatch prepare lists the reasons"
        )
    if config.json:
        show_json(values._asdict())
    else:
        console().print(
            f"--front-end.mean {values.mean} --front-end.std {values.std}   "
            f"({counted(values.clips, 'clip')} of {corpus.shown_name})"
        )
