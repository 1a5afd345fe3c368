"""JSON of AST and SSAST: ``{"data": [{"wav": ..., "labels": "/m/a,/m/b"}]}``.

The names of the classes stand in a file ``class_labels_indices.csv`` with the columns ``index``,
``mid`` and ``display_name``, beside the JSON or in the folder above.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from melpatch.data.formats.base import Format, split_of_file
from melpatch.data.json_tables import cell, whole_json
from melpatch.data.row import LABEL, PATH, Line, Table, one_label
from melpatch.errors import DataError
from melpatch.opening import LOG_BYTES, open_text, read_bytes

_CLASSES = "class_labels_indices.csv"
_BEGINNING = re.compile(rb'\s*\{\s*"data"\s*:\s*\[')
_FIX = 'write {"data": [{"wav": "a.wav", "labels": "/m/a,/m/b"}]}'


class AstJson(Format):
    """JSON of AST and SSAST, with the names of classes beside it."""

    what = "JSON of AST"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether the file begins with a list called data."""
        return _BEGINNING.match(head.removeprefix(b"\xef\xbb\xbf")) is not None

    def table(self, path: Path) -> Table:
        """Return the file and the classes of each entry."""
        content = whole_json(path, read_bytes(path, LOG_BYTES).decode("utf-8-sig"), _FIX)
        file = _classes_file(path)
        known = _read_classes(file) if file is not None else {}
        remark = "the labels are ids, for want of the names in class_labels_indices.csv"
        if file is not None:
            remark = f"the names of its {len(known)} classes are those of {file}"
        entries = content["data"]
        if not isinstance(entries, list):
            raise DataError(f"{path}: data is no list; {_FIX}")
        lines = _lines(entries, known, file)
        return Table([PATH, LABEL], lines, "", split_of_file(path), [remark], "entry")


def _classes_file(path: Path) -> Path | None:
    """Return the file with the names of the classes; None if there is none, or it is unclear which."""
    for folder in (path.parent, path.parent.parent):
        if (folder / _CLASSES).is_file():
            return folder / _CLASSES
        # SSAST's data sets have names before it, such as esc_class_labels_indices.csv.
        others = sorted(folder.glob(f"*_{_CLASSES}"))
        if len(others) == 1:
            return others[0]
    return None


def _read_classes(path: Path) -> dict[str, str]:
    """Return the names of classes by their ids; a name of several classes has the id behind it."""
    try:
        with open_text(path) as file:
            rows = csv.DictReader(file)
            names = {row["mid"]: one_label(row["display_name"] or row["mid"]) for row in rows}
    except (KeyError, csv.Error) as error:
        problem = f"not a list of classes ({error}); the columns are index, mid, display_name"
        raise DataError(f"{path}: {problem}") from error
    counts = Counter(names.values())
    return {mid: name if counts[name] == 1 else f"{name} ({mid})" for mid, name in names.items()}


def _lines(entries: list[Any], known: dict[str, str], file: Path | None) -> Iterator[Line]:
    """Yield path and labels of each entry, numbered from 1."""
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            yield number, f"a {type(entry).__name__}, not a JSON object"
            continue
        place, labels = cell(entry.get("wav")), entry.get("labels")
        if isinstance(labels, list):
            labels = ",".join(map(str, labels))
        texts = (cell(labels) or "").split(",")
        ids = [mid.strip() for mid in texts if mid.strip()]
        unknown = [mid for mid in ids if file is not None and mid not in known]
        if unknown:
            yield number, f"label {unknown[0]!r} is not in {file}; add its name there"
        else:
            yield number, [place or "", ";".join(known.get(mid, mid) for mid in ids)]
