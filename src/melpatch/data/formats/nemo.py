"""Manifests of NeMo: JSON lines with ``audio_filepath``, ``offset``, ``duration`` and a class or text.

The class is ``label`` or ``command``; a transcript (``text``) is one only where the user says so.
"""

from pathlib import Path

from melpatch.data.columns import is_usual
from melpatch.data.formats.base import Format, split_of_file
from melpatch.data.json_lines import first_record, read_records
from melpatch.data.json_tables import as_table
from melpatch.data.row import LABEL, Table

_AUDIO = "audio_filepath"
_COMMAND = "command"


class NeMo(Format):
    """Manifests of NeMo, one JSON object a line."""

    what = "a manifest of NeMo"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether the first line names the file of its sound as NeMo does."""
        return _AUDIO in first_record(head)

    def table(self, path: Path) -> Table:
        """Return the fields of all lines."""
        header, lines = as_table(read_records(path))
        has_label = any(is_usual(LABEL, name) for name in header)
        label = _COMMAND if _COMMAND in header and not has_label else ""
        return Table(header, lines, label, split_of_file(path))
