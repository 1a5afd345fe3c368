"""Whether a file is an unchanged output of ``embed`` or ``predict``, which it may replace."""

import zipfile
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Literal

import numpy as np

from melpatch.data.columns import CLASS_PREFIX
from melpatch.data.row import PACKED_COLUMNS, Line, split_labels
from melpatch.data.tables import opened
from melpatch.errors import DataError
from melpatch.faults import let_pass
from melpatch.inference.digests import DIGEST, digest_before_footer, digest_of_members
from melpatch.inference.novelty import NONE_OF_THESE

Command = Literal["embed", "predict"]
_PLACE = ("path", "key", "start", "end", *PACKED_COLUMNS)
_VALUES = {"embed": "embeddings", "predict": "probabilities"}
_DECISIONS = (["label", "probability", "note"], ["label", "probability", "novelty", "note"])
# Larger than the error of the 9 digits that CSV has of a number of 32 bits.
_DIGITS = 6e-9


def is_own_output(path: Path, ending: str, command: Command) -> bool:
    """Return whether a file is what a command writes, and nobody seems to have changed it.

    A file that another program saved differs: an NPZ or Parquet file by its digest, a CSV file by
    the ends of its lines. A number that was typed into embeddings is
    rarely one of 32 bits, and a label that was changed does not fit its probability.

    Args:
        path: an existing file.
        ending: its format.
        command: the command.
    """
    try:
        if ending == ".npz":
            with zipfile.ZipFile(path) as archive:
                needed = {"path.npy", f"{_VALUES[command]}.npy"}
                unchanged = archive.comment == digest_of_members(archive)
                return unchanged and needed <= {*archive.namelist()}
        if ending == ".parquet":
            return _is_own_parquet(path, command)
        if not _has_line_ends_of_csv(path):
            return False
        with opened(path) as (header, lines):
            return _is_own_csv(header, lines, command)
    except (DataError, OSError, ValueError, zipfile.BadZipFile) as error:
        let_pass(error)
        return False


def _is_own_parquet(path: Path, command: Command) -> bool:
    from pyarrow import parquet

    metadata = parquet.read_metadata(path)
    digest = (metadata.metadata or {}).get(DIGEST.encode())
    if digest is None or digest.decode() != digest_before_footer(path):
        return False
    names = list(parquet.read_schema(path).names)
    rest = names[len([*takewhile(_PLACE.__contains__, names)]) :]
    if command == "embed":
        return names[:1] == ["path"] and rest == ["embeddings"]
    return names[:1] == ["path"] and bool(_decision(rest))


def _is_own_csv(header: Sequence[str], lines: Iterator[Line], command: Command) -> bool:
    place = [*takewhile(_PLACE.__contains__, header)]
    rest = list(header[len(place) :])
    if place[:1] != ["path"]:
        return False
    if command == "embed":
        if not rest or rest != [f"embeddings_{number}" for number in range(len(rest))]:
            return False
        return all(
            not isinstance(cells, str)
            and len(cells) == len(header)
            and _are_of_32_bits(cells[len(place) :])
            for _, cells in lines
        )
    decision = _decision(rest)
    if not decision:
        return False
    classes = [name.removeprefix(CLASS_PREFIX) for name in rest[len(decision) :]]
    labels = _Labels(classes, decision)
    return (
        all(
            not isinstance(cells, str)
            and len(cells) == len(header)
            and labels.agree(cells[len(place) :])
            for _, cells in lines
        )
        and labels.have_thresholds()
    )


def _decision(names: Sequence[str]) -> list[str]:
    """Return the columns from the label to the note that come first; empty if they do not."""
    return next((known for known in _DECISIONS if [*names[: len(known)]] == known), [])


def _has_line_ends_of_csv(path: Path) -> bool:
    """Return whether the last line ends as Python's csv module writes it; few programs do so."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 2))
        return file.read() == b"\r\n"


def _are_of_32_bits(cells: Sequence[str]) -> bool:
    """Return whether cells are numbers of 32 bits with all their digits."""
    values = np.array(cells, dtype=np.float64)
    short = values.astype(np.float32).astype(np.float64)
    return bool(np.all(np.abs(values - short) <= _DIGITS * np.abs(short)))


class _Labels:
    """The labels of lines, and whether they fit the probabilities.

    Args:
        classes: names of the probabilities' columns.
        decision: names of the columns before them.
    """

    def __init__(self, classes: Sequence[str], decision: Sequence[str]) -> None:
        self._number = {name: number for number, name in enumerate(classes)}
        self._decision = decision
        # For each class the least probability at which it was given, and the greatest at which not.
        self._given = np.full(len(classes), np.inf)
        self._missed = np.full(len(classes), -np.inf)
        self._most_probable = True

    def agree(self, cells: Sequence[str]) -> bool:
        """Return whether a line's labels are classes, and its probability the greatest one."""
        label, highest = cells[:2]
        note = cells[len(self._decision) - 1]
        chances = np.array(cells[len(self._decision) :], dtype=np.float64)
        listed = {label} if label in self._number else {*split_labels(label)}
        if not listed <= self._number.keys() or float(highest) != chances.max():
            return False
        given = np.zeros(len(chances), dtype=bool)
        given[[self._number[name] for name in listed]] = True
        lowest = chances[given].min(initial=1.0)
        self._most_probable &= bool(lowest >= chances[~given].max(initial=0.0))
        self._given[given] = np.minimum(self._given[given], chances[given])
        if NONE_OF_THESE not in note:
            self._missed[~given] = np.maximum(self._missed[~given], chances[~given])
        return True

    def have_thresholds(self) -> bool:
        """Return whether each line has its most probable labels, or each class a threshold."""
        return self._most_probable or bool((self._given >= self._missed).all())
