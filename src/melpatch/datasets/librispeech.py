"""LibriSpeech: 1000 hours of read English without labels, for pretraining, split by speaker.

The parts ``train-*``, ``dev-*`` and ``test-*`` have a folder per speaker and chapter, whose
``SPEAKER-CHAPTER.trans.txt`` has a line per clip. The training set of subset 960 is all three
``train-*`` parts, that of subset 100 the first.

Source: Panayotov et al. 2015, "LibriSpeech: an ASR corpus based on public domain audio books".
"""

from collections.abc import Iterator
from pathlib import Path

from melpatch.datasets.base import Card, Entry, write_lines, write_noises
from melpatch.opening import read_text

_TRAIN = {
    "960": ("train-clean-100", "train-clean-360", "train-other-500"),
    "100": ("train-clean-100",),
}
_HELD_OUT = {"dev-clean": "val", "dev-other": "val", "test-clean": "test", "test-other": "test"}


def clips(root: Path, subset: str) -> list[Entry]:
    """Return the clips part by part, sorted; the group is the speaker.

    Validation and test parts may be missing.

    Raises:
        FileNotFoundError: a training part is missing.
    """
    # The training set alone is enough for pretraining.
    held_out = {part: split for part, split in _HELD_OUT.items() if (root / part).is_dir()}
    parts = dict.fromkeys(_TRAIN[subset], "train") | held_out
    return [entry for part, split in parts.items() for entry in _clips(root, part, split)]


def _clips(root: Path, part: str, split: str) -> Iterator[Entry]:
    for speaker in sorted((root / part).iterdir()):
        for chapter in sorted(speaker.glob("*/*.trans.txt")):
            folder = chapter.parent.relative_to(root).as_posix()
            # A line is the name of a clip and its text, "SPEAKER-CHAPTER-0000 SOME WORDS".
            for line in read_text(chapter).splitlines():
                name = line.partition(" ")[0]
                yield Entry(f"{folder}/{name}.flac", "", split, group=speaker.name)


def fake(root: Path) -> None:
    """Write every part, with one chapter of two clips by one speaker."""
    for speaker, part in enumerate((*_TRAIN["960"], *_HELD_OUT), start=100):
        chapter = f"{speaker}-7"
        names = [f"{chapter}-{number:04}" for number in range(2)]
        folder = f"{part}/{speaker}/7"
        lines = [f"{name} SOME WORDS" for name in names]
        write_lines(root / folder / f"{chapter}.trans.txt", *lines)
        write_noises(root, [f"{folder}/{name}.flac" for name in names])


CARD = Card(
    name="librispeech",
    summary="Audio books read in English, without labels.",
    licence="CC-BY-4.0",
    size="281241 clips of 1 to 35 s for training, 60 GB; subset 100: 28539 clips, 6 GB",
    metric="none: it is for pretraining",
    splits=("train", "val", "test"),
    labels=(),
    subsets=("960", "100"),
    download="fetch train-clean-100.tar.gz (and for subset 960 train-clean-360.tar.gz and "
    "train-other-500.tar.gz), and if wanted dev-* and test-*, from https://www.openslr.org/12, "
    "unpack them, and give the folder LibriSpeech, which contains train-clean-100/",
    clips=clips,
    fake=fake,
)
__registered__ = "CARD"
