"""What a format of others provides: how it is recognised, and its clips as a table of texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from melpatch.data.row import Table
from melpatch.data.split_roles import split_in_name, usual_split

# Usual endings of sound files, the most usual first.
_SOUND = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "aif", "aiff", "wma", "aac", "au", "w64")


class Format:
    """A list of clips, or a store of sound, that others write.

    A file ``data/formats/NAME.py`` holds one, a class of that name. Its table goes through the same
    checks as a CSV file: the names of its columns are recognised (``path``, ``label``, ``split``,
    ``start``, ``end``, ``duration``, ``group`` and their other names), paths are relative to the
    file, and a malformed line is rejected while the others are taken.
    """

    what: ClassVar[str]
    """The format in words, such as "a manifest of NeMo"."""
    beside_sound: ClassVar[bool] = False
    """Whether a folder is of this format even if sound lies in it."""

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether a file is of this format, from its content.

        Args:
            path: the file.
            head: its first bytes, up to 64 KiB; of a file that was compressed by gzip, those of
                the file before.
        """
        raise NotImplementedError

    def files(self, folder: Path, names: Sequence[str]) -> Sequence[Path]:
        """Return the files of this format anywhere below a folder; by default a folder has none.

        Args:
            folder: the folder.
            names: paths of the files below it that may be sound, by their names.
        """
        return ()

    def table(self, path: Path) -> Table:
        """Return the columns of a file, and its lines.

        Raises:
            DataError: the file is damaged.
            OSError, UnicodeDecodeError: it cannot be read.
        """
        raise NotImplementedError


def visible_files(folder: Path, ending: str) -> list[Path]:
    """Return the files with an ending anywhere below a folder, sorted; hidden ones are left out."""
    paths = sorted(folder.rglob(f"*{ending}"))
    return [
        path
        for path in paths
        if path.is_file()
        and not any(name.startswith(".") for name in path.relative_to(folder).parts)
    ]


def split_of_file(path: Path) -> str:
    """Return the split that a file's name or else its folder stands for; ``""`` for none."""
    return split_in_name(path.name.partition(".")[0]) or usual_split(path.parent.name) or ""


def sound_beside(path: Path, stem: str) -> str:
    """Return the name of the sound file of this stem beside a file; ``""`` if there is none."""
    for ending in _SOUND:
        for name in (f"{stem}.{ending}", f"{stem}.{ending.upper()}"):
            if (path.parent / name).is_file():
                return name
    return ""
