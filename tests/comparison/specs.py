"""A small spec, as text and as what it says."""

from pathlib import Path

from melpatch.comparison.spec import Spec
from melpatch.config import from_toml

TEXT = """
title = "Two ways"

[sound]
data = ["sounds.csv"]
exclude_splits = ["1"]

[[methods]]
name = "random"
trained = false

[[methods]]
name = "mine"
recipe = "maskspec"
flags = "--lr 1e-3"

[[tasks]]
name = "birds"
data = "birds.csv"
split_column = "fold"
split = ["1", "2"]

[[tasks]]
name = "words"
data = "words.csv"
protocols = ["linear C=1.0"]

[[budgets]]
name = "small"
recipe = "ssast"
flags = "--seconds 1"
steps = [10, 1000000]
seeds = [0, 1]
protocols = ["knn"]

[[budgets]]
name = "large"
sizes = ["small", "base"]
recipe = "ssast_patch"
"""


def write(folder: Path, *changes: tuple[str, str], text: str = TEXT) -> Path:
    """Write the spec, with changes, and return its path."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "spec.toml"
    path.write_text(text, encoding="utf-8")
    return path


def spec(folder: Path, *changes: tuple[str, str]) -> Spec:
    """Return the spec, with changes."""
    return from_toml(Spec, write(folder, *changes))
