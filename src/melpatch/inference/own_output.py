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

Command = Literal["embed", "predict"]
_PLACE = ("path", "key", "start", "end", *PACKED_COLUMNS)
_VALUES = {"embed": "embeddings", "predict": "probabilities"}
_DECISION = ["label", "probability", "note"]
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
    return names[:1] == ["path"] and rest[: len(_DECISION)] == _DECISION


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
    if rest[: len(_DECISION)] != _DECISION:
        return False
    classes = [name.removeprefix(CLASS_PREFIX) for name in rest[len(_DECISION) :]]
    return all(
        not isinstance(cells, str)
        and len(cells) == len(header)
        and _agrees(cells[len(place) :], classes)
        for _, cells in lines
    )


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


def _agrees(cells: Sequence[str], classes: Sequence[str]) -> bool:
    """Return whether a line has the most probable labels."""
    label, highest = cells[:2]
    chances = dict(zip(classes, map(float, cells[len(_DECISION) :]), strict=True))
    listed = {label} if label in chances else {*split_labels(label)}
    if not listed <= chances.keys() or float(highest) != max(chances.values()):
        return False
    others = [chance for name, chance in chances.items() if name not in listed]
    lowest = min((chances[name] for name in listed), default=1.0)
    return lowest >= max(others, default=0.0)
