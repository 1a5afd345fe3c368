"""What a command may leave in its folder: answers and weights that are finite numbers."""

import csv
import json
import math
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

NUMBERS = ("start", "end", "probability")


def check_answers(folder: Path) -> None:
    """Raise AssertionError if vectors, probabilities or weights in a folder are no finite numbers."""
    for file in folder.glob("*.npz"):
        with np.load(file, allow_pickle=False) as arrays:
            numbers = [arrays[name] for name in arrays.files if arrays[name].dtype.kind == "f"]
        assert all(np.isfinite(values).all() for values in numbers), f"{file.name} is not finite"
    for file in folder.glob("o*.csv"):
        with file.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                given = [row[name] for name in NUMBERS if row.get(name)]
                assert all(math.isfinite(float(number)) for number in given), f"{row}"
    for file in folder.rglob("scores.json"):
        text = file.read_text(encoding="utf-8")
        json.loads(text, parse_constant=_refuse)
    for file in folder.glob("o/model.safetensors"):
        for name, value in load_file(file).items():
            assert value.isfinite().all(), f"{name} is not finite"


def _refuse(constant: str) -> None:
    raise AssertionError(f"scores.json has {constant}")
