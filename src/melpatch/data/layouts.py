"""The usual layouts of folders of sound, from the paths of their files alone.

``class/file``, ``split/class/file`` (as of Hugging Face's AudioFolder), ``fold1/file``, and each of
them one level further down, as in ``audio/class/file``.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from sys import intern

import numpy as np

from melpatch.counted import counted
from melpatch.data.file_names import readable
from melpatch.data.row import Listing, Row, split_labels
from melpatch.data.row_columns import RowColumns, RowsBuilder, columns_with_usual_splits
from melpatch.data.split_roles import role_of, usual_split

_FOLD = re.compile(r"(fold|cv)[-_ ]?\d+", re.IGNORECASE)


def read_folder(folder: Path, names: Sequence[str]) -> Listing:
    """Return the files of a folder with the classes and splits that its layout gives them.

    Args:
        folder: the folder.
        names: paths of its files below it, with forward slashes.
    """
    remarks = []
    folders = [intern(name.rpartition("/")[0]) for name in names]
    # A layout is one of folders, of which there are fewer than files.
    paths = {
        parent: [*parent.split("/"), "*"] if parent else ["*"] for parent in dict.fromkeys(folders)
    }
    top = _shared_top([*paths.values()])
    if top:
        remarks.append(f"{folder}: the classes are the folders in {'/'.join(top)}/")
    levels = {parent: parts[len(top) :] for parent, parts in paths.items()}
    with_splits = _has_splits({parts[0] for parts in levels.values() if len(parts) > 1})
    about = {parent: _class_and_split(parts, with_splits) for parent, parts in levels.items()}
    rows = _rows(folder, names, [about[parent] for parent in folders])
    if with_splits:
        rows, sentence = columns_with_usual_splits(rows)
        listed = ", ".join(name for name in dict.fromkeys(rows.clips.splits) if name)
        classes = len({labels for labels, _ in about.values() if labels})
        what = "without classes"
        if classes:
            what = f"and the folders in them as {counted(classes, 'class')}"
        remarks = [
            f"{folder}: its folders are read as splits ({listed}), {what}"
            + (f"; {sentence}" if sentence else "")
        ]
    return Listing(rows, (), remarks)


def _class_and_split(parts: Sequence[str], with_splits: bool) -> tuple[tuple[str, ...], str]:
    """Return the labels and the split of the files in a folder, by the folders on its path."""
    split = ""
    if with_splits and len(parts) > 1:
        split, *parts = parts
    # Files that lie in no folder of a class have no label.
    label = parts[0] if len(parts) > 1 else ""
    return split_labels(readable(label)), readable(split)


def _rows(
    folder: Path, names: Sequence[str], about: Sequence[tuple[tuple[str, ...], str]]
) -> RowColumns:
    """Return the files of a folder as rows, with the labels and the split of each."""
    count = len(names)
    rows = RowsBuilder()
    # The path of a file, whose name is the rest; on Windows it has other separators.
    head = str(folder.absolute() / "*")[:-1]
    if os.sep != "/":
        rows.add(
            [
                Row(folder.absolute() / name, name, *of)
                for name, of in zip(names, about, strict=True)
            ]
        )
        return rows.done()
    rows.files.extend(head, names)
    rows.add_block(
        {
            "file": np.arange(count),
            "keys": np.zeros(count),
            "keyed": np.zeros(count),
            "starts": np.zeros(count),
            "durations": np.full(count, np.nan),
            "label_set": rows.label_sets.numbers(labels for labels, _ in about),
            "split": rows.splits.numbers(split for _, split in about),
            "group": rows.groups.numbers([""] * count),
            "lines": np.zeros(count),
        }
    )
    return rows.done()


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
