"""Lhotse's cuts, and its recordings: JSON lines, mostly compressed by gzip.

Facts of supervisions become columns: ``speaker``, ``text``, ``language``, ``gender`` and all that
is ``custom`` in them or in the cut. Those of several supervisions in a cut are separated by
semicolons.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from melpatch.data.formats.base import Format, split_of_file
from melpatch.data.json_lines import first_record, read_records
from melpatch.data.json_tables import Record, cell
from melpatch.data.row import DURATION, PATH, START, Line, Table

_FACTS = ("speaker", "text", "language", "gender")
_CUTS = ("MonoCut", "MultiCut")
_OTHER_CUTS = ("MixedCut", "PaddingCut")
_SAVE = "save its audio to a file first"


class Lhotse(Format):
    """Cuts of Lhotse whose sound lies in files."""

    what = "cuts of Lhotse"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether the first line is a cut or a recording."""
        record = first_record(head)
        is_cut = "recording" in record or record.get("type") in (*_CUTS, *_OTHER_CUTS)
        return is_cut or {"sources", "sampling_rate"} <= record.keys()

    def table(self, path: Path) -> Table:
        """Return the file, the times and what is known of each cut."""
        records = read_records(path)
        facts = [*dict.fromkeys(name for _, cut in records for name in _facts(cut))]
        facts = [name for name in facts if name not in (PATH, START, DURATION)]
        remarks = []
        if any(_takes_a_channel(cut) for _, cut in records):
            remarks.append("the channels of cuts are not used; --channel says which are taken")
        header = [PATH, START, DURATION, *facts]
        return Table(header, _lines(records, facts), "", split_of_file(path), remarks)


def _lines(records: list[Record], facts: list[str]) -> Iterator[Line]:
    """Yield the cells of each cut."""
    for number, cut in records:
        try:
            if isinstance(cut, ValueError):
                raise ValueError(f"not JSON ({cut})")
            known = _facts(cut)
            cells = [*_place(cut), *(";".join(known.get(name, ())) for name in facts)]
        except ValueError as error:
            yield number, str(error)
        else:
            yield number, cells


def _place(cut: Any) -> list[str]:
    """Return path, start and duration of a cut.

    Raises:
        ValueError: its sound is not that of a file.
    """
    if not isinstance(cut, dict):
        raise ValueError(f"a {type(cut).__name__}, not a JSON object")
    kind = cut.get("type", _CUTS[0])
    if kind not in _CUTS and "sources" not in cut:
        raise ValueError(f"a {kind}, not a stretch of a recording; {_SAVE}")
    # A recording is a cut of its whole length.
    recording = cut.get("recording", cut)
    if not isinstance(recording, dict) or not isinstance(recording.get("sources"), list):
        raise ValueError("no recording with sources; write cuts with their recordings")
    if recording.get("transforms"):
        raise ValueError(f"its recording is transformed on loading; {_SAVE}")
    return [_file(recording["sources"]), *(cell(cut.get(name)) or "" for name in (START, DURATION))]


def _file(sources: list[Any]) -> str:
    """Return the file of a recording.

    Raises:
        ValueError: it is none, or several.
    """
    if len(sources) != 1 or not isinstance(sources[0], dict):
        raise ValueError(f"a recording of {len(sources)} sources; {_SAVE}")
    kind = sources[0].get("type")
    if kind == "command":
        raise ValueError(f"its sound comes from a command, which is never run; {_SAVE}")
    source = sources[0].get("source")
    if kind != "file" or not isinstance(source, str):
        raise ValueError(f"its sound is of type {kind!r}; allowed: file; {_SAVE}")
    return source


def _facts(cut: Any) -> dict[str, list[str]]:
    """Return what supervisions and custom fields say of a cut, each value once."""
    if not isinstance(cut, dict):
        return {}
    supervisions = cut.get("supervisions")
    known: dict[str, list[str]] = {}
    for source in [*(supervisions if isinstance(supervisions, list) else []), cut]:
        if not isinstance(source, dict):
            continue
        custom = source.get("custom")
        values = {name: source.get(name) for name in _FACTS}
        if isinstance(custom, dict):
            values |= custom
        for name, value in values.items():
            text = cell(value)
            if text and text not in known.setdefault(name, []):
                known[name].append(text)
    return known


def _takes_a_channel(cut: Any) -> bool:
    """Return whether a cut takes some of several channels."""
    if not isinstance(cut, dict) or not isinstance(cut.get("recording"), dict):
        return False
    taken = cut.get("channel", 0)
    count = len(taken) if isinstance(taken, list) else 1
    sources = cut["recording"].get("sources")
    first = sources[0] if isinstance(sources, list) and sources else None
    channels = first.get("channels") if isinstance(first, dict) else None
    return isinstance(channels, list) and len(channels) > count
