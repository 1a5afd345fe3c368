"""Whether a file is an unchanged output of ``embed`` or ``predict``, which it may replace."""

import zipfile
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Literal

from melpatch.data.columns import CLASS_PREFIX
from melpatch.data.row import PACKED_COLUMNS, Line, split_labels
from melpatch.data.tables import opened
from melpatch.errors import DataError
from melpatch.faults import let_pass

Command = Literal["embed", "predict"]
_PLACE = ("path", "key", "start", "end", *PACKED_COLUMNS)
_VALUES = {"embed": "embeddings", "predict": "probabilities"}
_DECISION = ["label", "probability", "note"]


def is_own_output(path: Path, ending: str, command: Command) -> bool:
    """Return whether a file is what a command writes, and nobody has changed a label in it.

    Args:
        path: an existing file.
        ending: its format.
        command: the command.
    """
    try:
        if ending == ".npz":
            with zipfile.ZipFile(path) as archive:
                return {"path.npy", f"{_VALUES[command]}.npy"} <= {*archive.namelist()}
        if ending == ".parquet":
            return _is_own_parquet(path, command)
        with opened(path) as (header, lines):
            return _is_own_csv(header, lines, command)
    except (DataError, OSError, ValueError, zipfile.BadZipFile) as error:
        let_pass(error)
        return False


def _is_own_parquet(path: Path, command: Command) -> bool:
    from pyarrow import parquet

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
        return rest == [f"embeddings_{number}" for number in range(len(rest))] and bool(rest)
    if rest[: len(_DECISION)] != _DECISION:
        return False
    classes = [name.removeprefix(CLASS_PREFIX) for name in rest[len(_DECISION) :]]
    return all(
        not isinstance(cells, str)
        and len(cells) == len(header)
        and _agrees(cells[len(place) :], classes)
        for _, cells in lines
    )


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
