"""The usual layouts of folders of sound, from the paths of their files alone.

``class/file``, ``split/class/file`` (as of Hugging Face's AudioFolder), ``fold1/file``, and each of
them one level further down, as in ``audio/class/file``.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from melpatch.counted import counted
from melpatch.data.file_names import readable
from melpatch.data.row import Listing, Row, split_labels, with_usual_splits
from melpatch.data.split_roles import role_of, usual_split

_FOLD = re.compile(r"(fold|cv)[-_ ]?\d+", re.IGNORECASE)


def read_folder(folder: Path, names: Sequence[str]) -> Listing:
    """Return the files of a folder with the classes and splits that its layout gives them.

    Args:
        folder: the folder.
        names: paths of its files below it, with forward slashes.
    """
    remarks = []
    split_names = [name.split("/") for name in names]
    top = _shared_top(split_names)
    if top:
        remarks.append(f"{folder}: the classes are the folders in {'/'.join(top)}/")
    levels = [parts[len(top) :] for parts in split_names]
    with_splits = _has_splits({parts[0] for parts in levels if len(parts) > 1})
    rows = []
    for name, parts in zip(names, levels, strict=True):
        split = ""
        if with_splits and len(parts) > 1:
            split, *parts = parts
        # Files that lie in no folder of a class have no label.
        label = parts[0] if len(parts) > 1 else ""
        rows.append(
            Row(folder.absolute() / name, name, split_labels(readable(label)), readable(split))
        )
    if with_splits:
        rows, sentence = with_usual_splits(rows)
        listed = ", ".join(dict.fromkeys(row.split for row in rows if row.split))
        classes = len({row.labels for row in rows if row.labels})
        what = "without classes"
        if classes:
            what = f"and the folders in them as {counted(classes, 'class')}"
        remarks = [
            f"{folder}: its folders are read as splits ({listed}), {what}"
            + (f"; {sentence}" if sentence else "")
        ]
    return Listing(rows, (), remarks)


def _shared_top(paths: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the folders that hold all files and, further down, several folders of files.

    A folder of one class has no folders of its own that could be classes, and is not among them.
    """
    top: list[str] = []
    while True:
        depth = len(top)
        inner = {path[depth] if len(path) > depth + 1 else "" for path in paths}
        if len(inner) != 1 or "" in inner:
            break
        top.append(inner.pop())
    # The last one may be a class.
    while top and not _holds_folders(paths, len(top)):
        top.pop()
    # A lone folder ``train`` is a split.
    while top and usual_split(top[-1]):
        top.pop()
    return tuple(top)


def _holds_folders(paths: Sequence[Sequence[str]], depth: int) -> bool:
    """Return whether at least two folders with files lie at a depth."""
    return len({path[depth] for path in paths if len(path) > depth + 1}) > 1


def is_split_folder(name: str) -> bool:
    """Return whether a folder has the usual name of a split or fold."""
    return usual_split(name) is not None or _FOLD.fullmatch(name) is not None


def _has_splits(folders: set[str]) -> bool:
    """Return whether folders are splits or folds: ``train`` and ``test``, but not a class train."""
    if not folders:
        return False
    if all(map(is_split_folder, folders)):
        return True
    roles = {role_of(name) for name in folders}
    return "train" in roles and not roles.isdisjoint(("test", "val"))
