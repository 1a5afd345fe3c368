"""VoxCeleb1: 1251 celebrities in interviews, for speaker identification by the official split.

``iden_split.txt`` has a line ``1 id10001/VIDEO/00001.wav`` per clip: 1 is training, 2 validation, 3
test. The clips are in ``wav/``, or in ``dev/wav/`` and ``test/wav/`` as in the two archives, which
are split for speaker verification.

Source: Nagrani, Chung and Zisserman 2017 (arXiv 1706.08612).
"""

from functools import cache
from pathlib import Path

from melpatch.datasets.base import Card, Entry, write_lines, write_noises
from melpatch.opening import LOG_BYTES, read_text

_SPLITS = {"1": "train", "2": "val", "3": "test"}
_HOMES = ("wav", "dev/wav", "test/wav")


def clips(root: Path, subset: str) -> list[Entry]:
    """Return the clips in the order of the list; the label is the speaker, the group the video."""

    # A speaker is in one of the archives; cached to look only once per speaker.
    @cache
    def home(speaker: str) -> str:
        return next((home for home in _HOMES if (root / home / speaker).is_dir()), _HOMES[0])

    entries = []
    for line in read_text(root / "iden_split.txt", LOG_BYTES).splitlines():
        number, name = line.split()
        # A name is SPEAKER/VIDEO/00001.wav.
        video = name.rpartition("/")[0]
        speaker = name.partition("/")[0]
        entries.append(
            Entry(f"{home(speaker)}/{name}", speaker, _SPLITS[number], group=video, name=name)
        )
    return entries


def fake(root: Path) -> None:
    """Write three videos each of two speakers, one per archive."""
    homes = {"id10001": "dev/wav", "id10270": "test/wav"}
    names = {
        f"{speaker}/{'abc'[int(n) - 1]}BcDeFgHiJk/00001.wav": n
        for speaker in homes
        for n in _SPLITS
    }
    write_lines(root / "iden_split.txt", *(f"{number} {name}" for name, number in names.items()))
    write_noises(root, [f"{homes[name[:7]]}/{name}" for name in names])


CARD = Card(
    name="voxceleb1",
    summary="Celebrities speaking in interviews on YouTube, for speaker identification.",
    licence="CC-BY-SA-4.0 (the lists; the audio belongs to its makers)",
    size="153516 clips of 4 to 145 s by 1251 speakers, 38 GB",
    metric="accuracy",
    splits=("train", "val", "test"),
    labels=(),
    download="request the archives of VoxCeleb1 at https://www.robots.ox.ac.uk/~vgg/data/voxceleb, "
    "unpack them as wav/ or as dev/wav/ and test/wav/, put meta/iden_split.txt from the same site "
    "beside them, and give the folder that contains all of this",
    clips=clips,
    fake=fake,
)
__registered__ = "CARD"
