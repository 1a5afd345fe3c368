"""Clips that are listed more than once: the same stretch twice, or several stretches of a file."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from melpatch.counted import agreeing, counted
from melpatch.data.clip import Clip, clip_key
from melpatch.data.row import Row
from melpatch.errors import DataError
from melpatch.progress import notice
from melpatch.rng import hash_text


def distinct_keys(dataset: str, rows: Sequence[Row]) -> list[int]:
    """Return the keys of rows: the listed ones, or ones made of data set, path and start.

    Stretches of one file that would share a key, since they start together or were listed with the
    key of the whole file, get keys of their own, which do not depend on the order of the rows.

    Args:
        dataset: name of the data set.
        rows: the clips.
    """
    keys = [clip_key(dataset, row.name, row.start) if row.key is None else row.key for row in rows]
    # Keys that occur once, as nearly all do, are not looked at again.
    sharing: dict[int, list[int]] = defaultdict(list)
    if len({*keys}) < len(keys):
        for number, key in enumerate(keys):
            sharing[key].append(number)
    for key, numbers in sharing.items():
        stretches = {(rows[number].start, rows[number].duration) for number in numbers}
        files = {(rows[number].path, rows[number].offset) for number in numbers}
        # Another file of the same key is refused later, and a repeat is taken once.
        if len(stretches) > 1 and len(files) == 1:
            for number in numbers:
                length = rows[number].duration
                # To a microsecond, the resolution of a clip's start.
                shown = "" if length is None else f"{length:.6f}"
                keys[number] = hash_text(f"{key}\0{rows[number].start:.6f}\0{shown}")
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


def without_repeats(
    clips: Sequence[Clip], source: str | Path = "", lines: Sequence[int] = ()
) -> tuple[Clip, ...]:
    """Return clips without those that are listed twice alike; these are reported.

    Args:
        clips: clips of one source, or of several.
        source: the source, for messages; ``""`` for several.
        lines: the line of each clip in a table; 0 for files of a folder.

    Raises:
        DataError: a clip is listed twice with different labels, splits or groups, or two clips have
            the same key.
    """
    lines = lines or [0] * len(clips)
    first_of: dict[tuple[str, int, float, float], int] = {}
    keys: dict[int, int] = {}
    kept: list[Clip] = []
    repeats: list[tuple[int, int]] = []
    for number, clip in enumerate(clips):
        place = str(clip.path), clip.offset, clip.start, clip.duration
        first = first_of.setdefault(place, number)
        if first != number:
            _refuse_contradiction(clips[first], clip, source, (lines[first], lines[number]))
            repeats.append((first, number))
            continue
        other = keys.setdefault(clip.key, number)
        if other != number:
            hint = "rename one of their folders, or correct the column 'key'"
            raise DataError(
                f"{clip.location} and {clips[other].location} have the same key, {clip.key}; {hint}"
            )
        kept.append(clip)
    if repeats:
        first, again = repeats[0]
        where = f", such as {clips[again].location}"
        if lines[again]:
            where = f", such as line {lines[again]}, which is line {lines[first]} again"
        what = f"{source}: " if str(source) else ""
        count = f"{counted(len(repeats), 'clip')} {agreeing(len(repeats), 'is', 'are')}"
        notice(f"{what}{count} listed twice{where}, and taken once")
    return tuple(kept)


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
