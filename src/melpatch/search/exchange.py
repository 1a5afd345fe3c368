"""Labelled stretches to the files of Raven and Audacity, one for each recording."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from melpatch.atomic import written_aside
from melpatch.data.answers import Labelled
from melpatch.data.file_names import path_text
from melpatch.errors import ConfigError
from melpatch.outputs import as_file_name

Program = Literal["raven", "audacity"]
_ENDING = {"raven": ".Table.1.selections.txt", "audacity": ".txt"}
_RAVEN = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Begin Path"),
    *("File Offset (s)", "Label"),
)


def write_for(program: Program, stretches: Sequence[Labelled], folder: Path) -> int:
    """Write a file for each recording into a folder, and return how many.

    Labels of one stretch come as selections of their own. Recordings of the same name in different
    folders have files with a number.

    Raises:
        ConfigError: such a file is there already.
    """
    by_path: dict[str, list[Labelled]] = {}
    for stretch in sorted(stretches, key=lambda stretch: (stretch.path, stretch.start)):
        by_path.setdefault(stretch.path, []).append(stretch)
    names: dict[str, str] = {}
    for path in by_path:
        stem = as_file_name(Path(path_text(Path(path))).stem)
        name, number = stem, 2
        while name in names.values():
            name, number = f"{stem} {number}", number + 1
        names[path] = name
    outs = {path: folder / (name + _ENDING[program]) for path, name in names.items()}
    taken = next((out for out in outs.values() if out.exists()), None)
    if taken is not None:
        raise ConfigError(f"--out {taken}: exists; give another folder")
    for path, own in by_path.items():
        rows = _raven(own) if program == "raven" else _audacity(own)
        with written_aside(outs[path]) as aside:
            aside.write_text("".join(map(_line, rows)), encoding="utf-8")
    return len(outs)


def _raven(stretches: Sequence[Labelled]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [_RAVEN]
    for stretch in stretches:
        times = (f"{stretch.start:.6f}", f"{stretch.end:.6f}")
        for label in stretch.labels:
            number = str(len(rows))
            path = path_text(Path(stretch.path))
            rows.append((number, "Spectrogram 1", "1", *times, path, times[0], label))
    return rows


def _audacity(stretches: Sequence[Labelled]) -> list[Sequence[str]]:
    return [
        (f"{stretch.start:.6f}", f"{stretch.end:.6f}", label)
        for stretch in stretches
        for label in stretch.labels
    ]


def _line(cells: Sequence[str]) -> str:
    """Return a line; neither program knows quotation marks, so a tab in a cell becomes a blank."""
    return "\t".join(" ".join(re.split(r"[\t\r\n]", cell)) for cell in cells) + "\n"
