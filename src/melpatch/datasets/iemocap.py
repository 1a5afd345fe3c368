"""IEMOCAP: dialogues of ten actors with SUPERB's four emotions; each of five sessions is a fold.

``Session*/dialog/EmoEvaluation/*.txt`` have one line per turn,
``[start - end]<tab>turn<tab>emotion<tab>[ratings]``; its audio is a file of its own below
``sentences/wav/``. Excitement counts as happiness. Turns of other emotions, or on which the raters
disagreed, are left out. 5531 clips remain.

Source: Busso et al. 2008, "IEMOCAP: interactive emotional dyadic motion capture database"; the four
classes and the folds as in SUPERB, Yang et al. 2021 (arXiv 2105.01051).
"""

import re
from pathlib import Path

from melpatch.datasets.base import Card, Entry, write_lines, write_noises
from melpatch.opening import read_bytes

# The raters' emotions, and the classes of SUPERB.
_EMOTIONS = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}
_LINE = re.compile(r"\[[\d.]+ - [\d.]+\]\t(\w+)\t(\w+)\t")
_SESSIONS = ("1", "2", "3", "4", "5")


def clips(root: Path, subset: str) -> list[Entry]:
    """Return the turns in the order of their names; the group is the speaker, such as ``Ses01F``.

    Raises:
        FileNotFoundError: a session is missing; without its fold, the mean is not comparable.
    """
    entries = []
    for session in _SESSIONS:
        listed = root / f"Session{session}/dialog/EmoEvaluation"
        # Unlike glob, this raises if the folder is missing.
        listed.stat()
        turns = [
            turn
            for file in listed.glob("Ses*.txt")
            for turn in _LINE.findall(read_bytes(file).decode("latin-1"))
        ]
        for name, emotion in sorted(turns):
            dialogue, _, turn = name.rpartition("_")
            if emotion in _EMOTIONS:
                path = f"Session{session}/sentences/wav/{dialogue}/{name}.wav"
                # A dialogue is named after the actor with markers, a turn after the speaker.
                speaker = f"{name[:5]}{turn[0]}"
                entries.append(Entry(path, _EMOTIONS[emotion], session, group=speaker))
    return entries


def fake(root: Path) -> None:
    """Write a dialogue of each session, with a turn of every emotion and two that are left out."""
    for session in _SESSIONS:
        dialogue = f"Ses0{session}F_impro01"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for number, emotion in enumerate((*_EMOTIONS, "xxx", "fru")):
            turn = f"{dialogue}_{'FM'[number % 2]}{number:03}"
            times = f"[{number}.5000 - {number}.9000]"
            lines.append(f"{times}\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]")
            # The release has the votes of single raters below each turn.
            lines += [f"C-E2:\t{emotion};\t()", ""]
            write_noises(root, [f"Session{session}/sentences/wav/{dialogue}/{turn}.wav"])
        write_lines(root / f"Session{session}/dialog/EmoEvaluation/{dialogue}.txt", *lines)


CARD = Card(
    name="iemocap",
    summary="Acted and improvised English dialogues with neutral, happy, angry and sad turns.",
    licence="IEMOCAP's own: free for research, on request",
    size="5531 clips of 1 to 34 s, 1.5 GB; the whole release has 12 GB",
    metric="accuracy, mean over the folds",
    splits=_SESSIONS,
    labels=("ang", "hap", "neu", "sad"),
    download="request IEMOCAP at https://sail.usc.edu/iemocap, unpack it, and give the folder "
    "IEMOCAP_full_release, which contains Session1 to Session5",
    clips=clips,
    fake=fake,
)
__registered__ = "CARD"
