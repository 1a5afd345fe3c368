"""ESC-50: 2000 environmental sounds of 5 s in 50 classes and five folds; ESC-10 is a fifth of it.

``meta/esc50.csv`` lists the clips of ``audio/``. The folds keep clips of one class and recording
together; four recordings have clips of two classes, in two folds.

Source: Piczak 2015, "ESC: Dataset for Environmental Sound Classification".
"""

import csv
from pathlib import Path

from melpatch.datasets.base import Card, Entry, write_lines, write_noises
from melpatch.opening import open_text

_LABELS = (  # noqa: SIM905
    "airplane breathing brushing_teeth can_opening car_horn cat chainsaw chirping_birds"
    " church_bells clapping clock_alarm clock_tick coughing cow crackling_fire crickets crow"
    " crying_baby dog door_wood_creaks door_wood_knock drinking_sipping engine fireworks footsteps"
    " frog glass_breaking hand_saw helicopter hen insects keyboard_typing laughing mouse_click pig"
    " pouring_water rain rooster sea_waves sheep siren sneezing snoring thunderstorm toilet_flush"
    " train vacuum_cleaner washing_machine water_drops wind"
).split()


def clips(root: Path, subset: str) -> list[Entry]:
    """Return the clips in the order of the list; the group is the recording on freesound.org."""
    with open_text(root / "meta/esc50.csv") as file:
        # The same list serves ESC-10, whose clips are marked.
        listed = [row for row in csv.DictReader(file) if subset == "50" or row["esc10"] == "True"]
    return [
        Entry(f"audio/{row['filename']}", row["category"], row["fold"], group=row["src_file"])
        for row in listed
    ]


def fake(root: Path) -> None:
    """Write two clips of each fold, one of which belongs to ESC-10."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        rows.append(f"{fold}-{1000 + fold}-A-0.wav,{fold},0,dog,True,{1000 + fold},A")
        rows.append(f"{fold}-{2000 + fold}-B-47.wav,{fold},47,airplane,False,{2000 + fold},B")
    write_lines(root / "meta/esc50.csv", *rows)
    write_noises(root, [f"audio/{row.partition(',')[0]}" for row in rows[1:]])


CARD = Card(
    name="esc50",
    summary="Environmental sound: animals, nature, people, home and town.",
    licence="CC-BY-NC-3.0 (ESC-10: CC-BY-3.0)",
    size="2000 clips of 5 s, 0.6 GB; subset 10: 400 clips",
    metric="accuracy, mean over the folds",
    splits=("1", "2", "3", "4", "5"),
    labels=tuple(_LABELS),
    subsets=("50", "10"),
    download="fetch https://github.com/karolpiczak/ESC-50/archive/master.zip, unpack it, and give "
    "the folder ESC-50-master, which contains audio/ and meta/esc50.csv",
    clips=clips,
    fake=fake,
)
__registered__ = "CARD"
