"""Read JSON lines, as manifests of NeMo and Hugging Face have them, and lists of JSON objects, as tables."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from melpatch.data.columns import is_time
from melpatch.data.row import Line, one_label
from melpatch.errors import DataError
from melpatch.opening import LOG_BYTES, read_bytes

Record = tuple[int, Any]
"""The number of a line, and its value or a ValueError."""
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")


def json_table(path: Path) -> tuple[list[str], Iterator[Line]]:
    """Return the names of the columns of all lines, in the order in which they appear, and the lines.

    A line that is no JSON object has a reason instead of cells. Values that are objects, or lists
    of anything but texts and numbers, are no cells.

    Raises:
        DataError: the file is one JSON value, but no list of objects.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    content = read_bytes(path, LOG_BYTES).decode("utf-8-sig")
    if content.lstrip().startswith("["):
        values = whole_json(path, content, "write one object a line")
        return as_table([*zip(count(1), values, strict=False)])
    records = parsed_lines(content)
    if len(records) > 1 and not any(isinstance(record, dict) for _, record in records):
        raise DataError(
            f"{path}: not JSON lines (line {records[0][0]}: no object); write one object a line, "
            'such as {"path": "a.wav", "label": "dog"}'
        )
    return as_table(records)


def parsed_lines(content: str) -> list[Record]:
    """Return the value of each line that is not blank, or a ValueError that says why it has none."""
    # Not splitlines(), which also splits at characters that texts may hold.
    numbered = enumerate(content.split("\n"), 1)
    return [(number, _parsed(line)) for number, line in numbered if line.strip()]


def as_table(records: Sequence[Record]) -> tuple[list[str], Iterator[Line]]:
    """Return the names of the columns of all records, and their lines."""
    header = _columns(record for _, record in records)
    return header, _lines(records, header)


def whole_json(path: Path, content: str, fix: str) -> Any:
    """Return the value of a whole file.

    Raises:
        DataError: it is no JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); {fix}") from error


def _parsed(line: str) -> Any:
    """Return the value of a line, or the reason why it is none."""
    try:
        return json.loads(line)
    except RecursionError:
        return ValueError("nested too deeply")
    except ValueError as error:
        return error


def _columns(records: Iterable[Any]) -> list[str]:
    names: dict[str, None] = {}
    for record in records:
        if isinstance(record, dict):
            names |= {name: None for name, value in record.items() if cell(value) is not None}
    return [*names]


def _lines(records: Iterable[tuple[int, Any]], header: list[str]) -> Iterator[Line]:
    for number, record in records:
        if isinstance(record, dict):
            yield number, [_cell_called(name, record.get(name)) for name in header]
        elif isinstance(record, ValueError):
            yield number, f"not JSON ({record})"
        else:
            yield number, f"a {type(record).__name__}, not a JSON object"


def _cell_called(name: str, value: Any) -> str:
    """Return the value of a column as a cell; a time that is no number is refused later on."""
    if is_time(name) and isinstance(value, float):
        return str(value)
    return cell(value) or ""


def cell(value: Any) -> str | None:
    """Return a value as a cell: labels of a list are separated by semicolons; None if it is none."""
    # NaN, which Python writes into JSON for what is missing, is unlike itself.
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ";".join(one_label(str(item)) for item in value if item == item)
    return None
