"""FSD50K: 51,197 sounds of freesound.org with 200 labels of AudioSet's ontology, several per clip.

``FSD50K.ground_truth/dev.csv`` lists the training and validation clips, ``eval.csv`` the test
clips. A clip has the labels of its classes and of all their ancestors.

Source: Fonseca et al. 2022 (arXiv 2010.00475).
"""

import csv
from pathlib import Path

from melpatch.datasets.base import Card, Entry, write_lines, write_noises
from melpatch.opening import open_text

_LISTS = "FSD50K.ground_truth"


def clips(root: Path, subset: str) -> list[Entry]:
    """Return the clips in the order of the two lists."""
    entries = []
    for part in ("dev", "eval"):
        with open_text(root / _LISTS / f"{part}.csv") as file:
            for row in csv.DictReader(file):
                # Only the list of the development set has a column of splits.
                split = "test"
                if part == "dev":
                    split = row["split"]
                labels = row["labels"].replace(",", ";")
                entries.append(Entry(f"FSD50K.{part}_audio/{row['fname']}.wav", labels, split))
    return entries


def fake(root: Path) -> None:
    """Write two clips of each split."""
    dev = {
        "10": ("Bark,Dog,Animal", "train"),
        "20": ("Rain", "val"),
        "30": ("Rain,Wind", "train"),
        "40": ("Dog", "val"),
    }
    lists = root / _LISTS
    write_lines(
        lists / "dev.csv",
        "fname,labels,mids,split",
        *(f'{name},"{labels}","/m/{name}",{split}' for name, (labels, split) in dev.items()),
    )
    write_lines(
        lists / "eval.csv", "fname,labels,mids", '50,"Bark,Dog,Animal","/m/0"', '60,"Wind","/m/1"'
    )
    write_noises(root, [*(f"FSD50K.dev_audio/{name}.wav" for name in dev)])
    write_noises(root, ["FSD50K.eval_audio/50.wav", "FSD50K.eval_audio/60.wav"])


CARD = Card(
    name="fsd50k",
    summary="Sounds of all kinds that users uploaded to freesound.org.",
    licence="CC-BY-4.0 (single clips: CC0-1.0, CC-BY, CC-BY-NC or CC Sampling+)",
    size="51197 clips of 0.3 to 30 s, 25 GB",
    metric="mAP",
    splits=("train", "val", "test"),
    labels=(),
    download="fetch all parts of https://zenodo.org/records/4060432, unpack them, and give the "
    "folder that contains FSD50K.ground_truth, FSD50K.dev_audio and FSD50K.eval_audio",
    clips=clips,
    fake=fake,
)
__registered__ = "CARD"
