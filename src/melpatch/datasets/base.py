"""What every dataset file offers: a card to read before use, and the list of its clips."""

import csv
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from melpatch.config import check
from melpatch.data.sources import Row, sound_files, split_labels
from melpatch.errors import DataError


class Entry(NamedTuple):
    """One clip as a release lists it, whether or not its file lies there.

    Attributes:
        path: the file below the dataset's folder, with forward slashes.
        label: its class; several are parted by semicolons; empty where it has none.
        split: its split or fold.
        start: in seconds.
        duration: in seconds; None for all that follows.
        group: the recording, speaker or patient it belongs to, if the release says.
        name: what its key is made from, where the path is not the same on every machine; else the path is.
    """

    path: str
    label: str
    split: str
    start: float = 0.0
    duration: float | None = None
    group: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What one should know of a dataset before using it, and the way to its clips."""

    name: str
    """The name under which it is found, that of its file."""
    summary: str
    """What is heard in it, in one sentence."""
    licence: str
    """SPDX name of the licence of the recordings, or what stands in the place of one."""
    size: str
    """How many clips of what length, and how much disk space."""
    metric: str
    """What its scores are given in, such as accuracy or mAP."""
    splits: tuple[str, ...]
    """Its splits, or its folds."""
    labels: tuple[str, ...]
    """Its closed set of labels, sorted; empty where the release itself lists them, or has none."""
    download: str
    """What to fetch, from where, and how it must lie below the dataset's folder."""
    subsets: tuple[str, ...] = ()
    """Its variants, the default first; empty if there is one only."""
    clips: Callable[[Path, str], list[Entry]]
    """Lists the official clips of a subset, in a fixed order, from a folder that holds the release; those whose files
    are missing too, where the release lists them."""
    fake: Callable[[Path], None]
    """Writes a tiny tree with the layout of the release, for tests and trials."""

    def look_up(self, root: Path, subset: str = "") -> tuple[list[Row], list[Row]]:
        """Return the clips of a subset whose files lie in a folder, and those whose files are missing.

        Args:
            root: folder of the release.
            subset: one of the card's; empty for the default.

        Raises:
            ConfigError: there is no such subset.
            DataError: the lists of the release are not there or not what they should be, or no clip is there.
        """
        check(
            not subset or subset in self.subsets,
            "subset",
            subset,
            ", ".join(self.subsets) or f"none for {self.name}",
        )
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; {self.download}")
        listed = self._listed(root, subset or next(iter(self.subsets), ""))
        there = {entry.path for entry in listed}.intersection(sound_files(root))
        if not there:
            what = (
                f"none of {len(listed):,} clips, such as {listed[0].path}"
                if listed
                else "no list of clips"
            )
            raise DataError(f"{root}: holds {what}, of {self.name}; {self.download}")
        found: list[Row] = []
        missing: list[Row] = []
        for entry in listed:
            (found if entry.path in there else missing).append(_row(entry, root.absolute()))
        return found, missing

    def _listed(self, root: Path, subset: str) -> list[Entry]:
        try:
            return self.clips(root, subset)
        except OSError as error:
            raise DataError(
                f"{error.filename}: cannot be read ({error.strerror}); {self.download}"
            ) from error
        except (KeyError, ValueError, csv.Error) as error:  # a list without a column, or cut short
            what = f"{type(error).__name__}: {error}"
            raise DataError(
                f"{root}: its lists are not those of {self.name} ({what}); {self.download}"
            ) from error


def _row(entry: Entry, root: Path) -> Row:
    return Row(
        root / entry.path,
        entry.name or entry.path,
        split_labels(entry.label),
        entry.split,
        entry.start,
        entry.duration,
        group=entry.group,
    )


def write_noises(root: Path, paths: Iterable[str], seconds: float = 0.1) -> None:
    """Write a short noise at 16 kHz to each path below a folder, other for every path: the clips of a fake release."""
    for path in paths:
        wave = np.random.default_rng(zlib.crc32(path.encode())).uniform(
            -0.5, 0.5, round(seconds * 16_000)
        )
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, wave, 16_000)


def write_lines(path: Path, *lines: str) -> None:
    """Write a text file of these lines: a list of a fake release."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
