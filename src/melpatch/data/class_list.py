"""Read the names of classes in the order of a model's outputs."""

import csv
from pathlib import Path

from melpatch.errors import ConfigError
from melpatch.opening import read_text, reading

ALLOWED = (
    "one name a line, or a CSV file with the columns index and display_name, such as AudioSet's "
    "class_labels_indices.csv"
)
"""What a class list holds."""


def read_class_list(path: Path) -> tuple[str, ...]:
    """Return the names in a file: one a line, or as in AudioSet's class_labels_indices.csv.

    Raises:
        CheckpointError: the file cannot be read.
        ConfigError: its numbers are not those from 0 on, or a name is empty or given twice.
    """
    with reading(path, f"give {ALLOWED}"):
        lines = read_text(path).removeprefix("\ufeff").strip().splitlines()
        columns = next(csv.reader(lines[:1]), [])
        labels = tuple(line.strip() for line in lines)
        if {"index", "display_name"} <= {*columns}:
            rows = [*csv.DictReader(lines)]
            indices = [int(row["index"]) for row in rows]
            labels = tuple(row["display_name"].strip() for row in rows)
            if indices != [*range(len(rows))]:
                raise ValueError("the column index does not count from 0")
    require_names(labels, str(path))
    return labels


def require_names(labels: tuple[str, ...], where: str) -> None:
    """Raise ConfigError if there are no names, or one of them is empty or given twice."""
    if not labels:
        raise ConfigError(f"{where}: holds no class; give {ALLOWED}")
    for number, label in enumerate(labels):
        if not label:
            raise ConfigError(f"{where}: class {number} has no name; give {ALLOWED}")
        if label in labels[:number]:
            first = labels.index(label)
            raise ConfigError(
                f"{where}: classes {first} and {number} are both called {label!r}; give each a "
                "name of its own with --labels"
            )
