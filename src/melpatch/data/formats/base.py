"""What a format of others provides: how it is recognised, and its clips as a table of texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from melpatch.data.columns import ColumnNames
from melpatch.data.row import Table


class Part(NamedTuple):
    """A file of a folder in some format, and the split that its name stands for, or ``""``."""

    path: Path
    split: str = ""


class Format:
    """A list of clips, or a store of sound, that others write.

    A file ``data/formats/NAME.py`` holds one, a class of that name. Its table goes through the same
    checks as a CSV file: the names of its columns are recognised (``path``, ``label``, ``split``,
    ``start``, ``end``, ``duration``, ``group`` and their other names), paths are relative to the
    file, and a malformed line is rejected while the others are taken.
    """

    what: ClassVar[str]
    """The format in words, such as "a manifest of NeMo"."""

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether a file is of this format, from its content.

        Args:
            path: the file.
            head: its first bytes, up to 64 KiB; of a file that was compressed by gzip, those of
                the file before.
        """
        raise NotImplementedError

    def parts(self, folder: Path) -> Sequence[Part]:
        """Return the files of this format in a folder that holds no sound; none by default."""
        return ()

    def table(self, path: Path, names: ColumnNames) -> Table:
        """Return the columns of a file, and its lines.

        Args:
            path: the file.
            names: the columns that the user named.

        Raises:
            DataError: the file is damaged.
            OSError, UnicodeDecodeError: it cannot be read.
        """
        raise NotImplementedError
