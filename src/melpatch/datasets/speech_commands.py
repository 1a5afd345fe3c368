"""Google Speech Commands: spoken words of 1 s; 35 words (version 2), or SUPERB's 12 classes (1).

``v2-35``: all words of version 0.02; its two lists name the validation and test clips, the others
are for training.

``v1-12``: ten words of version 0.01, the others as ``_unknown_``, and noise as ``_silence_``.
Speakers are split by the release's own rule, a hash of their name: below 10 % validation, 10 to
20 % left out, the others training. The test clips are those of the test set that was released
separately. *Differs:* s3prl crops silence at random from all six noise files, for training and
validation alike, again in every epoch. Here silence is every whole second of each file, the last
tenth for validation, so that the two share no audio and the list is the same for everyone.

Source: Warden 2018 (arXiv 1804.03209); the twelve classes as in SUPERB, Yang et al. 2021 (arXiv
2105.01051).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from melpatch.audio.files import probe
from melpatch.data.sources import sound_files
from melpatch.datasets.base import Card, Entry, write_lines, write_noises
from melpatch.opening import read_text

_TEN = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
_WORDS = (
    *_TEN,
    *"backward bed bird cat dog eight five follow forward four happy house learn".split(),  # noqa: SIM905
    *"marvin nine one seven sheila six three tree two visual wow zero".split(),  # noqa: SIM905
)
_SILENCE = "_silence_"
_UNKNOWN = "_unknown_"
_NOISE = "_background_noise_"
_V2 = "speech_commands_v0.02"
_V1 = "speech_commands_v0.01"
_V1_TEST = "speech_commands_test_set_v0.01"
_NOISES = (
    "doing_the_dishes",
    "dude_miaowing",
    "exercise_bike",
    "pink_noise",
    "running_tap",
    "white_noise",
)


def clips(root: Path, subset: str) -> list[Entry]:
    """Return the words in the order of their paths, then the silence; groups are speakers."""
    if subset == "v2-35":
        return _v2(root)
    return [*_v1(root), *_silence(root), *_v1_test(root)]


def split_of(speaker: str) -> str:
    """Return the split of a speaker by the release's rule: ``train``, ``val`` or ``test``."""
    # As in the release: the SHA-1 of the name, modulo 2^27, in per cent.
    number = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % (1 << 27)
    share = 100 * number / ((1 << 27) - 1)
    if share < 10:
        return "val"
    if share < 20:
        return "test"
    return "train"


def _v2(root: Path) -> list[Entry]:
    listed = {
        name: split
        for split, file in (("val", "validation_list.txt"), ("test", "testing_list.txt"))
        for name in read_text(root / _V2 / file).split()
    }
    # Listed clips whose files are missing are included.
    names = sorted(listed.keys() | set(_words(root / _V2)))
    return [
        Entry(
            f"{_V2}/{name}", name.partition("/")[0], listed.get(name, "train"), group=_speaker(name)
        )
        for name in names
    ]


def _v1(root: Path) -> list[Entry]:
    entries = []
    for name in _words(root / _V1):
        word = name.partition("/")[0]
        speaker = _speaker(name)
        split = split_of(speaker)
        if split != "test":
            label = word if word in _TEN else _UNKNOWN
            entries.append(Entry(f"{_V1}/{name}", label, split, group=speaker))
    return entries


def _silence(root: Path) -> list[Entry]:
    """Return the noise files in clips of 1 s, without group; a missing file is one clip."""
    entries = []
    # The last tenth of each file is for validation, so that the two splits share no audio.
    for noise in _NOISES:
        path = f"{_V1}/{_NOISE}/{noise}.wav"
        seconds = 1
        if (root / path).is_file():
            seconds = int(probe(root / path).duration or 0)
        for start in range(seconds):
            split = "val" if start >= int(0.9 * seconds) else "train"
            entries.append(Entry(path, _SILENCE, split, float(start), 1.0))
    return entries


def _v1_test(root: Path) -> list[Entry]:
    names = [
        name
        for name in _files(root / _V1_TEST)
        if name.partition("/")[0] in (*_TEN, _SILENCE, _UNKNOWN)
    ]
    return [
        Entry(f"{_V1_TEST}/{name}", name.partition("/")[0], "test", group=_speaker(name))
        for name in names
    ]


def _words(folder: Path) -> list[str]:
    return [name for name in _files(folder) if name.partition("/")[0] in _WORDS]


def _files(folder: Path) -> Iterator[str]:
    # This raises if the part is missing; the error then says what to download.
    folder.stat()
    return sound_files(folder)


def _speaker(name: str) -> str:
    speaker, separator, _ = Path(name).name.partition("_nohash_")
    # Silence and noise have no speaker.
    return speaker if separator else ""


def fake(root: Path) -> None:
    """Write words of both versions by four speakers: one validation, one test, two training."""
    speakers = ["00000000", "00000002", "00000001", "00000003"]
    names = [
        f"{word}/{speaker}_nohash_0.wav" for word in ("cat", "yes", "up") for speaker in speakers
    ]
    write_noises(root / _V2, names)
    write_lines(root / _V2 / "validation_list.txt", *names[::4])
    write_lines(root / _V2 / "testing_list.txt", *names[1::4])
    write_noises(root / _V1, names)
    write_noises(root / _V1, [f"{_NOISE}/{noise}.wav" for noise in _NOISES], seconds=3.5)
    write_noises(
        root / _V1_TEST,
        [f"yes/{speakers[1]}_nohash_1.wav", f"{_SILENCE}/1.wav", f"{_UNKNOWN}/1.wav"],
    )


CARD = Card(
    name="speech_commands",
    summary="Single English words, spoken by thousands of volunteers.",
    licence="CC-BY-4.0",
    size="v2-35: 105829 clips of up to 1 s, 3.3 GB; v1-12: about 58000 clips and 3081 for the "
    "test, 2 GB",
    metric="accuracy",
    splits=("train", "val", "test"),
    labels=tuple(sorted((*_WORDS, _SILENCE, _UNKNOWN))),
    subsets=("v2-35", "v1-12"),
    download="fetch http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz (v2-35), or "
    "speech_commands_v0.01.tar.gz and speech_commands_test_set_v0.01.tar.gz (v1-12) from the same "
    "place, unpack each into a folder of its name without the extension, and give the folder that "
    "contains these folders",
    clips=clips,
    fake=fake,
)
__registered__ = "CARD"
