"""Read structures of Thrift's compact protocol, in which Parquet files describe themselves.

Only what is needed to look at such a description before a library is given it: numbers, lists and
nested structures. Texts are skipped. Whatever a file states, reading takes bounded time and memory.
"""

import os
from io import BufferedIOBase
from typing import Any

_DEEPEST = 8
_LONGEST_LIST = 10_000  # columns, for one
_LONGEST_NUMBER = 10  # bytes of a varint of 64 bits
# Types of fields.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _TEXT, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


def read_struct(file: BufferedIOBase, last: int | None = None, depth: int = 0) -> dict[int, Any]:
    """Return the fields of a structure by their numbers; texts are None.

    Args:
        file: open at the beginning of the structure.
        last: number of the last field that is wanted, behind which reading stops.
        depth: of the structure in others.

    Raises:
        ValueError: there is no such structure, or it breaks off.
    """
    if depth > _DEEPEST:
        raise ValueError("structures are nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while kind := _byte(file):
        # The upper half is the step from the number of the field before, or 0.
        step = kind >> 4
        number = number + step if step else _signed(file)
        fields[number] = _value(file, kind & 15, depth)
        if number == last:
            break
    return fields


def _value(file: BufferedIOBase, kind: int, depth: int) -> Any:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE
    if kind == _BYTE:
        return _byte(file)
    if kind in (_I16, _I32, _I64):
        return _signed(file)
    if kind == _DOUBLE:
        _skip(file, 8)
        return None
    if kind == _TEXT:
        _skip(file, _unsigned(file))
        return None
    if kind in (_LIST, _SET):
        return _list(file, depth)
    if kind == _STRUCT:
        return read_struct(file, depth=depth + 1)
    raise ValueError(f"a field of type {kind}")


def _list(file: BufferedIOBase, depth: int) -> list[Any]:
    if depth > _DEEPEST:
        raise ValueError("lists are nested too deeply")
    head = _byte(file)
    size = head >> 4
    if size == 15:
        size = _unsigned(file)
    if size > _LONGEST_LIST:
        raise ValueError(f"a list of {size:,} entries")
    kind = head & 15
    if kind in (_TRUE, _FALSE):
        return [_byte(file) == _TRUE for _ in range(size)]
    return [_value(file, kind, depth + 1) for _ in range(size)]


def _byte(file: BufferedIOBase) -> int:
    byte = file.read(1)
    if not byte:
        raise ValueError("breaks off")
    return byte[0]


def _unsigned(file: BufferedIOBase) -> int:
    value = 0
    for place in range(_LONGEST_NUMBER):
        byte = _byte(file)
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value
    raise ValueError("a number of too many bytes")


def _signed(file: BufferedIOBase) -> int:
    # Zigzag: 0, -1, 1, -2, ... are 0, 1, 2, 3, ...
    value = _unsigned(file)
    return (value >> 1) ^ -(value & 1)


def _skip(file: BufferedIOBase, size: int) -> None:
    file.seek(size, os.SEEK_CUR)
