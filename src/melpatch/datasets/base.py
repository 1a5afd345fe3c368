"""The parts of a dataset file: a card with its facts, and the list of its clips."""

import csv
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from melpatch.config import check
from melpatch.counted import counted
from melpatch.data.row import Row, split_labels
from melpatch.data.sources import sound_files
from melpatch.errors import DataError, shortened
from melpatch.faults import let_pass


class Entry(NamedTuple):
    """One clip as listed in a release, whether or not its file exists.

    Attributes:
        path: the file below the dataset's folder, with forward slashes.
        label: its class; several are separated by semicolons; empty if it has none.
        split: its split or fold.
        start: in seconds.
        duration: in seconds; None: up to the end of the file.
        group: the recording, speaker or patient it belongs to, if the release states it.
        name: text from which its key is made; by default the path.
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
    """The facts of a dataset, and the function that lists its clips."""

    name: str
    """Name of the dataset, that of its file."""
    summary: str
    """Content of the recordings, in one sentence."""
    licence: str
    """SPDX name of the licence of the recordings, or a description of its terms."""
    size: str
    """Number and length of the clips, and disk space."""
    metric: str
    """Metric of published scores, such as accuracy or mAP."""
    splits: tuple[str, ...]
    """Splits or folds."""
    labels: tuple[str, ...]
    """The closed set of labels, sorted; empty if the release lists them itself or has none."""
    download: str
    """What to download from where, and the layout of the dataset's folder."""
    subsets: tuple[str, ...] = ()
    """Variants, the default first; empty if there is only one."""
    clips: Callable[[Path, str], list[Entry]]
    """Lists the official clips of a subset in a fixed order, given the folder of the release.

    Clips whose files are missing are included if the release lists them."""
    fake: Callable[[Path], None]
    """Writes a tiny tree with the layout of the release, for tests and trials."""
    make: Callable[[Path], None] | None = None
    """Writes the whole dataset, as large as ``size`` says, to a folder that is absent or empty.

    None if the recordings are real, and have to be downloaded."""

    def look_up(self, root: Path, subset: str = "") -> tuple[list[Row], list[Row]]:
        """Return the clips of a subset whose files exist, and those whose files are missing.

        Args:
            root: folder of the release.
            subset: one of the card's; empty for the default.

        Raises:
            ConfigError: there is no such subset.
            DataError: the lists of the release are missing or malformed, or no clip exists.
        """
        self.require_subset(subset)
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; {self.download}")
        listed = self._listed(root, subset or next(iter(self.subsets), ""))
        # One walk over the folder is much faster than asking for each of a million files.
        existing = {entry.path for entry in listed}.intersection(sound_files(root))
        if not existing:
            content = "no list of clips"
            if listed:
                content = f"none of {counted(len(listed), 'clip')}, such as {listed[0].path}"
            raise DataError(f"{root}: holds {content}, of {self.name}; {self.download}")
        folder = root.absolute()
        present = [_row(entry, folder) for entry in listed if entry.path in existing]
        missing = [_row(entry, folder) for entry in listed if entry.path not in existing]
        return present, missing

    def require_subset(self, subset: str) -> None:
        """Raise SettingError unless there is this subset; empty stands for the default."""
        allowed = ", ".join(self.subsets) or f"none for {self.name}"
        check(not subset or subset in self.subsets, "subset", subset, allowed)

    def _listed(self, root: Path, subset: str) -> list[Entry]:
        try:
            return self.clips(root, subset)
        except OSError as error:
            let_pass(error)
            problem = f"cannot be read ({error.strerror})"
            raise DataError(f"{error.filename}: {problem}; {self.download}") from error
        # A list lacks a column, or is truncated.
        except (
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
            csv.Error,
        ) as error:
            reason = f"{type(error).__name__}: {shortened(error, typed=True)}"
            problem = f"its lists are not those of {self.name} ({reason})"
            raise DataError(f"{root}: {problem}; {self.download}") from error


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
    """Write short noises at 16 kHz, different for each path: the clips of a fake release."""
    for path in paths:
        # Seeded by the path, because files of the same content would be reported as leaks.
        rng = np.random.default_rng(zlib.crc32(path.encode()))
        wave = rng.uniform(-0.5, 0.5, round(seconds * 16_000))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, wave, 16_000)


def write_lines(path: Path, *lines: str) -> None:
    """Write lines to a text file: a list of a fake release."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
