"""What made-up corpora share: files, splits, checks, and a folder that is whole or absent."""

import csv
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import soundfile

from melpatch.config import check
from melpatch.datasets.base import Entry
from melpatch.datasets.synthesis import SAMPLE_RATE, Wave
from melpatch.errors import DataError
from melpatch.opening import open_text
from melpatch.progress import track

MANIFEST = "corpus.csv"
"""Name of the list of clips in the folder of a corpus."""
_COLUMNS = ("path", "label", "split")
# 60 % of the clips are for training, 10 % for validation and 30 % for the test.
_SPLITS = ("train", "test", "train", "val", "train", "test", "train", "train", "test", "train")


def check_counts(clips: int, unlabelled: int, seed: int) -> None:
    """Raise SettingError unless there are clips to make, and the seed can be one."""
    some = clips >= 0 and unlabelled >= 0 and clips + unlabelled > 0
    check(some, "(clips, unlabelled)", (clips, unlabelled), "0 or more each, and not both 0")
    check(seed >= 0, "seed", seed, "0 or more")


def split_of(block: int) -> str:
    """Return the split of a block of successive clips, such as ten that have every class once."""
    return _SPLITS[block % len(_SPLITS)]


def audio_paths(clips: int) -> list[str]:
    """Return the paths of the sounds below the folder of a corpus."""
    return [f"audio/{number:06d}.flac" for number in range(clips)]


def list_in_tens(labels: Sequence[str], unlabelled: int) -> list[Entry]:
    """Return the rows of a manifest whose splits hold ten successive labelled clips at a time.

    Args:
        labels: label of each labelled clip, in order.
        unlabelled: number of further clips, without label, in the split ``pretrain``.
    """
    paths = audio_paths(len(labels) + unlabelled)
    known = [
        Entry(path, label, split_of(number // 10))
        for number, (path, label) in enumerate(zip(paths, labels, strict=False))
    ]
    return known + [Entry(path, "", "pretrain") for path in paths[len(labels) :]]


def how_to_make(name: str) -> str:
    """Return what the card of a corpus says instead of where to download it."""
    return (
        f"nothing to fetch: melpatch prepare {name} --root FOLDER makes it if FOLDER does not "
        f"exist or is empty; melpatch.datasets.{name}.generate makes other sizes"
    )


def make_corpus(
    root: Path,
    settings: Sequence[object],
    entries: Sequence[Entry],
    wave: Callable[[int], Wave],
) -> Path:
    """Write a corpus of 16-bit FLAC files with its manifest, and return the manifest's path.

    A complete corpus of the same settings is left as it is. All files are written to a temporary
    folder beside it, which is then renamed.

    Args:
        root: the folder to write.
        settings: all that the sounds depend on, as JSON can hold it; kept in ``settings.json``.
        entries: rows of the manifest; the column of groups is left out if no clip has one.
        wave: returns the sound of a row by its index, 16 kHz in [-1, 1].

    Raises:
        DataError: the folder contains something else.
    """
    text = json.dumps(settings)
    root = root.resolve()
    if not _holds(root, text):
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as aside:
            folder = Path(aside) / root.name
            _write(folder, entries, wave)
            (folder / "settings.json").write_text(text, encoding="utf-8")
            # Another process may have been faster.
            if not _holds(root, text):
                folder.rename(root)
    return root / MANIFEST


def read_entries(root: Path) -> list[Entry]:
    """Return the rows of the manifest of a corpus.

    Raises:
        OSError: there is no manifest.
    """
    with open_text(root / MANIFEST) as file:
        return [
            Entry(row["path"], row["label"], row["split"], group=row.get("group", ""))
            for row in csv.DictReader(file)
        ]


def _holds(root: Path, settings: str) -> bool:
    """Return whether the folder contains the corpus of these settings; False if it is empty.

    Raises:
        DataError: the folder contains anything else.
    """
    if is_free(root):
        return False
    about = root / "settings.json"
    same = about.is_file() and about.read_text(encoding="utf-8") == settings
    whole = same and (root / MANIFEST).is_file()
    if whole and all((root / entry.path).is_file() for entry in read_entries(root)):
        return True
    problem = "is not the whole corpus of these settings"
    raise DataError(f"{root}: {problem}; remove it or name another folder")


def is_free(root: Path) -> bool:
    """Return whether a corpus can be made in a folder: it does not exist, or is empty."""
    return not root.exists() or (root.is_dir() and not any(root.iterdir()))


def _write(root: Path, entries: Sequence[Entry], wave: Callable[[int], Wave]) -> None:
    (root / "audio").mkdir(parents=True)
    for number, entry in track(enumerate(entries), len(entries), "making", "clip"):
        soundfile.write(root / entry.path, wave(number), SAMPLE_RATE, subtype="PCM_16")
    rows = [[entry.path, entry.label, entry.split] for entry in entries]
    columns = [*_COLUMNS]
    if any(entry.group for entry in entries):
        columns.append("group")
        rows = [[*row, entry.group] for row, entry in zip(rows, entries, strict=True)]
    with (root / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
