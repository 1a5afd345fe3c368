"""Clips that are listed more than once: the same stretch twice, or several stretches of a file."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int

from melpatch.counted import agreeing, counted
from melpatch.data.clip import Clip, clip_keys
from melpatch.data.clip_columns import ClipColumns, chosen
from melpatch.data.row import Row
from melpatch.data.row_columns import RowColumns
from melpatch.errors import DataError
from melpatch.progress import notice
from melpatch.rng import hash_text

# Keys that are made at a time.
_BLOCK = 4096
_ODD = np.int64(0x9E3779B97F4A7C15 - (1 << 64))


def distinct_keys(dataset: str, listed: Sequence[Row]) -> Int[np.ndarray, " row"]:
    """Return the keys of rows: the listed ones, or ones made of data set, path and start.

    Stretches of one file that would share a key, since they start together or were listed with the
    key of the whole file, get keys of their own, which do not depend on the order of the rows.

    Args:
        dataset: name of the data set.
        listed: the clips.
    """
    rows = RowColumns.of(listed)
    keys = _listed_or_made(dataset, rows)
    # Keys that occur once, as nearly all do, are not looked at again.
    sharing: dict[int, list[int]] = defaultdict(list)
    for number in _recurring(keys).tolist():
        sharing[int(keys[number])].append(number)
    for key, numbers in sharing.items():
        alike = {number: rows[number] for number in numbers}
        stretches = {(row.start, row.duration) for row in alike.values()}
        files = {(row.path, row.offset) for row in alike.values()}
        # Another file of the same key is refused later, and a repeat is taken once.
        if len(stretches) > 1 and len(files) == 1:
            for number, row in alike.items():
                # To a microsecond, the resolution of a clip's start.
                shown = "" if row.duration is None else f"{row.duration:.6f}"
                keys[number] = hash_text(f"{key}\0{row.start:.6f}\0{shown}")
    return keys


def labels_together(rows: Sequence[Row]) -> list[Row]:
    """Return rows of which those of one stretch of a file are one, with the labels of all.

    Rows come in the order of the first of each stretch.
    """
    together: dict[tuple[Path, float, float | None], Row] = {}
    for row in rows:
        place = row.path, row.start, row.duration
        first = together.setdefault(place, row)
        new = tuple(label for label in row.labels if label not in first.labels)
        if new:
            together[place] = first._replace(labels=first.labels + new)
    return [*together.values()]


def _listed_or_made(dataset: str, rows: RowColumns) -> Int[np.ndarray, " row"]:
    """Return the key that each row lists, or else that of its name and start."""
    if rows.keyed.all():
        return rows.clips.keys.copy()
    names = rows.all_names()
    keys = rows.clips.keys.copy()
    for first in range(0, len(rows), _BLOCK):
        part = slice(first, first + _BLOCK)
        starts = rows.clips.starts[part].tolist()
        made = clip_keys(dataset, [*islice(names, len(starts))], starts)
        keys[part] = np.where(rows.keyed[part], keys[part], made)
    return keys


def _recurring(values: Int[np.ndarray, " value"]) -> Int[np.ndarray, " _"]:
    """Return the places of values that occur more than once."""
    ordered = np.sort(values)
    if not (ordered[1:] == ordered[:-1]).any():
        return np.zeros(0, np.int64)
    order = values.argsort(kind="stable")
    same = np.diff(values[order]) == 0
    return np.union1d(order[1:][same], order[:-1][same])


def without_repeats(
    clips: Sequence[Clip],
    source: str | Path = "",
    lines: Int[np.ndarray, " clip"] | None = None,
) -> Sequence[Clip]:
    """Return clips without those that are listed twice alike; these are reported.

    Args:
        clips: clips of one source, or of several.
        source: the source, for messages; ``""`` for several.
        lines: the line of each clip in a table; 0 for files of a folder.

    Raises:
        DataError: a clip is listed twice with different labels, splits or groups, or two clips have
            the same key.
    """
    suspects = np.arange(len(clips))
    if isinstance(clips, ClipColumns):
        # Most clips of a large corpus can be no repeats: neither their place nor their key recurs.
        suspects = np.union1d(_recurring(_places(clips)), _recurring(clips.keys))
    if not len(suspects):
        return clips
    line_of = [0] * len(suspects) if lines is None else lines[suspects].tolist()
    again = _repeats(chosen(clips, suspects), source, line_of)
    if not again:
        return clips
    return chosen(clips, np.delete(np.arange(len(clips)), suspects[np.array(again)]))


def _places(clips: ClipColumns) -> Int[np.ndarray, " clip"]:
    """Return a hash of where each clip is stored, and of its start and duration."""
    places = clips.files.hashes()[clips.file]
    parts = [clips.starts.view(np.int64), clips.durations.view(np.int64)]
    if clips.packed is not None:
        parts.append(clips.packed[:, 0])
    for part in parts:
        # A multiplier of random, odd bits; the upper half, which it mixes best, is folded down.
        places = (places ^ part) * _ODD
        places ^= places >> 32
    hashes: np.ndarray = places
    return hashes


def _repeats(clips: Sequence[Clip], source: str | Path, lines: Sequence[int]) -> list[int]:
    """Return the numbers of clips that are listed before, and report them.

    Raises:
        DataError: as :func:`without_repeats`.
    """
    first_of: dict[tuple[str, int, float, float], int] = {}
    keys: dict[int, int] = {}
    made = [*clips]
    repeats: list[tuple[int, int]] = []
    for number, clip in enumerate(made):
        place = str(clip.path), clip.offset, clip.start, clip.duration
        first = first_of.setdefault(place, number)
        if first != number:
            _refuse_contradiction(made[first], clip, source, (lines[first], lines[number]))
            repeats.append((first, number))
            continue
        other = keys.setdefault(clip.key, number)
        if other != number:
            hint = "rename one of their folders, or correct the column 'key'"
            raise DataError(
                f"{clip.location} and {made[other].location} have the same key, {clip.key}; {hint}"
            )
    if repeats:
        first, again = repeats[0]
        where = f", such as {made[again].location}"
        if lines[again]:
            where = f", such as line {lines[again]}, which is line {lines[first]} again"
        what = f"{source}: " if str(source) else ""
        count = f"{counted(len(repeats), 'clip')} {agreeing(len(repeats), 'is', 'are')}"
        notice(f"{what}{count} listed twice{where}, and taken once")
    return [number for _, number in repeats]


def _refuse_contradiction(
    first: Clip, again: Clip, source: str | Path, lines: tuple[int, int]
) -> None:
    """Refuse a clip that is listed twice with different facts: which are right is unknown."""
    for name, before, now in (
        ("labels", ";".join(first.labels), ";".join(again.labels)),
        ("splits", first.split, again.split),
        ("groups", first.group, again.group),
    ):
        if before != now:
            where = f" (lines {lines[0]} and {lines[1]} of {source})" if all(lines) else ""
            fix = "keep one row, with several labels as 'a;b', or drop the source within another"
            raise DataError(
                f"{again.location}: listed twice, from {again.start} s, with the {name} "
                f"{before!r} and {now!r}{where}; {fix}"
            )
