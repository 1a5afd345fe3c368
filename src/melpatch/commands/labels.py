"""Take labels of other programs into a labels.csv, or write them for Raven or Audacity."""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

import tyro

from melpatch.audio.files import probe
from melpatch.counted import counted
from melpatch.data.answers import YES, Answer, Labelled, question
from melpatch.data.clip import Clip
from melpatch.data.file_names import absolute, path_text
from melpatch.errors import ConfigError
from melpatch.inference.sources import list_recordings
from melpatch.outputs import is_among
from melpatch.progress import notice
from melpatch.search.exchange import write_for
from melpatch.search.label_file import now, open_labels


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which labels to take, and where to."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Tables with labels: labels.csv of melpatch page, selection tables of Raven, label tracks of
    Audacity, or other data (docs/data.md)."""
    out: Path
    """labels.csv to add to, for melpatch page; or with --to the folder for the files of a program."""
    to: Literal["labels", "raven", "audacity"] = "labels"
    """Which kind of file to write."""
    who: str = ""
    """Name that is noted for the labels in a labels.csv."""


def run(config: Config) -> None:
    """Write the labelled stretches of all sources."""
    clips = [clip for clip in list_recordings(config.sources) if clip.labels]
    if not clips:
        names = ", ".join(config.sources)
        raise ConfigError(f"{names}: no labels; give tables with a label for each stretch")
    stretches = [_labelled(clip) for clip in clips]
    if config.to != "labels":
        files = write_for(config.to, stretches, config.out)
        notice(f"{counted(len(stretches), 'stretch')} in {counted(files, 'file')}: {config.out}")
        return
    if is_among(config.out, config.sources):
        raise ConfigError(f"--out {config.out}: is an input; give another file")
    with open_labels(config.out) as labels:
        settled = labels.settled()
        answers = [
            Answer(question(own.path, own.start, own.end, label), own.split, config.who, now(), YES)
            for own in stretches
            for label in own.labels
        ]
        new = [
            answer
            for answer in answers
            if answer.question not in settled or settled[answer.question].answer != YES
        ]
        labels.add(new)
    notice(
        f"{counted(len(new), 'label')} added to {config.out}, {len(answers) - len(new)} were there"
    )


def _labelled(clip: Clip) -> Labelled:
    if clip.size:
        raise ConfigError(f"{clip.location}: is packed in another file; give sound files")
    path = absolute(clip.path)
    end = clip.start + clip.duration
    if end == inf:
        info = probe(path)
        if info.samples is None:
            raise ConfigError(f"{path}: does not state its length; give the end of each label")
        end = info.samples / info.sample_rate
    return Labelled(path_text(path), clip.start, end, clip.labels, clip.split or "train")
