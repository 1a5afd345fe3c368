"""IEMOCAP: ten actors in dialogue, with four emotions as SUPERB has them; each of the five sessions is a fold.

``Session*/dialog/EmoEvaluation/*.txt`` have a line ``[start - end]<tab>turn<tab>emotion<tab>[ratings]`` for every turn,
whose sound is a file of its own below ``sentences/wav/``. Excitement counts as happiness; turns of other emotions, or
on which the listeners did not agree, are left out. 5531 clips remain.

Source: Busso et al. 2008, "IEMOCAP: interactive emotional dyadic motion capture database"; the four classes and the
folds as in SUPERB, Yang et al. 2021 (arXiv 2105.01051).
"""

import re
from pathlib import Path

from melpatch.datasets.base import Card, Entry, write_lines, write_noises

_EMOTIONS = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}
_LINE = re.compile(r"\[[\d.]+ - [\d.]+\]\t(\w+)\t(\w+)\t")
_SESSIONS = ("1", "2", "3", "4", "5")


def clips(root: Path, subset: str) -> list[Entry]:
    """Return the turns in the order of their names; their group is the speaker, such as ``Ses01F``.

    Raises:
        FileNotFoundError: a session is absent, without whose fold no mean over the folds is the published one.
    """
    entries = []
    for session in _SESSIONS:
        listed = root / f"Session{session}/dialog/EmoEvaluation"
        listed.stat()  # glob says nothing of a folder that is not there
        turns = [
            turn
            for file in listed.glob("Ses*.txt")
            for turn in _LINE.findall(file.read_text(encoding="latin-1"))
        ]
        for name, emotion in sorted(turns):
            dialogue, _, turn = name.rpartition("_")
            if emotion in _EMOTIONS:
                path = f"Session{session}/sentences/wav/{dialogue}/{name}.wav"
                # The dialogue is named after the one who wears markers, the turn after the one who speaks.
                entries.append(
                    Entry(path, _EMOTIONS[emotion], session, group=f"{name[:5]}{turn[0]}")
                )
    return entries


def fake(root: Path) -> None:
    """Write one dialogue of each session, with a turn of every emotion and two that are left out."""
    for session in _SESSIONS:
        dialogue = f"Ses0{session}F_impro01"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for number, emotion in enumerate((*_EMOTIONS, "xxx", "fru")):
            turn = f"{dialogue}_{'FM'[number % 2]}{number:03}"
            lines += [
                f"[{number}.5000 - {number}.9000]\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]"
            ]
            lines += [f"C-E2:\t{emotion};\t()", ""]
            write_noises(root, [f"Session{session}/sentences/wav/{dialogue}/{turn}.wav"])
        write_lines(root / f"Session{session}/dialog/EmoEvaluation/{dialogue}.txt", *lines)


CARD = Card(
    name="iemocap",
    summary="Acted and improvised dialogues in English: neutral, happy, angry or sad?",
    licence="IEMOCAP's own: free for research, on request",
    size="5531 clips of 1 to 34 s, 1.5 GB; the whole release has 12 GB",
    metric="accuracy, mean over the folds",
    splits=_SESSIONS,
    labels=("ang", "hap", "neu", "sad"),
    download="ask for IEMOCAP at https://sail.usc.edu/iemocap, unpack it, and give the folder IEMOCAP_full_release, in "
    "which Session1 to Session5 lie",
    clips=clips,
    fake=fake,
)
__registered__ = "CARD"
