"""An unfinished output in numbered parts, each complete or absent, so that a killed run resumes.

The folder ``OUT.parts`` lies beside ``OUT`` until it is finished. A part holds the rows of some
consecutive recordings and depends on no other part, so it does not matter which rank computes it,
before or after a crash.
"""

import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from melpatch import distributed
from melpatch.atomic import clear_partial, discard, is_partial, sync, written_aside
from melpatch.config import from_dict
from melpatch.data.clip import Clip
from melpatch.data.corpus import Rejected
from melpatch.errors import CheckpointError, ConfigError, DataError
from melpatch.faults import let_pass, remedy
from melpatch.inference.rows import Row
from melpatch.inference.windows import NumberedClips
from melpatch.opening import LOG_BYTES, open_binary, read_json, read_text, reading, require_regular

_ABOUT = "about.json"
_JOINED = "joined"
_ROW_HEAD = struct.Struct("<qdd?")  # recording, start, end, silent; float32 values follow

# A part is made of one recording or more, and of no more than this.
_MOST_BYTES = 1 << 26  # of sound files
_MOST_RECORDINGS = 512

# Rows are read back in chunks of no more than this.
_CHUNK_BYTES = 1 << 24
_CHUNK_ROWS = 1 << 12


@dataclass(frozen=True)
class Part:
    """Facts about a complete part.

    Attributes:
        rows: number of rows.
        width: values per row; 0 without rows.
        recordings: number of recordings, read or rejected.
        seconds: seconds of audio that were decoded.
        rejected: recordings that could not be read.
    """

    rows: int
    width: int
    recordings: int
    seconds: float
    rejected: tuple[Rejected, ...]


def group_clips(recordings: Sequence[Clip]) -> list[NumberedClips]:
    """Return numbered recordings in groups of one part each: up to 512 recordings or 64 MiB."""
    groups: list[list[tuple[int, Clip]]] = []
    group_bytes = 0
    for number, clip in enumerate(recordings):
        size = _bytes_of(clip)
        # A recording larger than a part is a part alone.
        full = not groups or len(groups[-1]) == _MOST_RECORDINGS
        if full or group_bytes + size > _MOST_BYTES:
            groups.append([])
            group_bytes = 0
        groups[-1].append((number, clip))
        group_bytes += size
    return [*groups]


def _bytes_of(clip: Clip) -> int:
    """Return the size of a clip in its shard, or of its file; 0 if that is missing."""
    if clip.size:
        return clip.size
    return clip.path.stat().st_size if clip.path.is_file() else 0


class PartFolder:
    """The folder that holds the parts of an output.

    Args:
        out: the output.
        about: everything that the rows depend on, by name; a resumed run must have the same.
        resume: whether to continue a killed run, if there is one.

    Raises:
        CheckpointError: a killed run left parts, and ``resume`` is not given or ``about`` differs.
        DataError: the folder cannot be created, or not all ranks see it.
    """

    def __init__(self, out: Path, about: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = out.with_name(f"{out.name}.parts")
        self._out = out
        self._about = json.dumps(about, indent=1)
        if distributed.is_rank_zero():
            self._prepare(resume)
        # The other ranks look only once rank 0 has made the folder.
        distributed.barrier()
        try:
            kept = read_text(self.folder / _ABOUT)
        except OSError as error:
            fix = "all ranks must see it; choose another --out"
            raise DataError(f"{self.folder}: cannot be read ({error.strerror}); {fix}") from error
        if kept != self._about:
            raise DataError(
                f"{self.folder}: rank {distributed.rank()} has other recordings or another model "
                "than rank 0; give all ranks the same"
            )

    def _prepare(self, resume: bool) -> None:
        if self.complete():
            if not resume:
                raise CheckpointError(
                    f"{self.folder}: holds the parts of an interrupted run; add --resume to "
                    "continue it, or delete the folder"
                )
            self._require_same_about()
        elif self._is_foreign():
            raise DataError(
                f"{self.folder}: holds other files, but parts are kept there; choose another --out"
            )
        try:
            # Of this folder, a run that was killed while it removed it has left a part.
            clear_partial(self.folder.parent, self.folder.name)
            if not self.complete():
                shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            clear_partial(self.folder)
            with written_aside(self.folder / _ABOUT) as aside:
                aside.write_text(self._about, encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be written ({error.strerror}); {remedy(error)}"
            ) from error

    def _is_foreign(self) -> bool:
        """Return whether the folder holds files but not the one that every run writes first."""
        if not self.folder.is_dir() or (self.folder / _ABOUT).exists():
            return False
        # A run that was killed while it wrote that file has left a half-written one only.
        return not all(is_partial(path) for path in self.folder.iterdir())

    def _require_same_about(self) -> None:
        with reading(self.folder / _ABOUT, "delete the folder to start again"):
            kept = read_json(self.folder / _ABOUT)
        wanted = json.loads(self._about)
        for name in kept.keys() | wanted.keys():
            if kept.get(name) != wanted.get(name):
                raise CheckpointError(
                    f"{self.folder}: was started with {name} = {kept.get(name)!r}, now "
                    f"{wanted.get(name)!r}; give the same, or delete the folder to start again"
                )

    def complete(self) -> dict[int, Part]:
        """Return the complete parts by their numbers, in order."""
        parts = {}
        for path in sorted(self.folder.glob("[0-9]*.json")):
            part = self._read(path)
            if part is not None:
                parts[int(path.stem)] = part
        return parts

    def _read(self, path: Path) -> Part | None:
        """Return a part; None if a power cut has damaged it, or its rows are not all there."""
        try:
            part = from_dict(Part, read_json(path, LOG_BYTES))
            size = require_regular(self._rows(int(path.stem)))
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            let_pass(error)
            return None
        return part if size == part.rows * (_ROW_HEAD.size + 4 * part.width) else None

    @contextmanager
    def written(self, number: int) -> Iterator["PartWriter"]:
        """Give a writer of a part, which is complete once the body has ended without an error."""
        with written_aside(self._rows(number)) as aside, aside.open("wb") as file:
            writer = PartWriter(file)
            yield writer
        # Written after the rows: a part counts as complete once this file exists.
        with written_aside(self.folder / f"{number:08}.json") as aside:
            aside.write_text(json.dumps(asdict(writer.part())), encoding="utf-8")

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the rows of all complete parts in chunks that fit into memory.

        A chunk is an array with the fields ``recording``, ``start``, ``end``, ``silent`` and
        ``values``.
        """
        for number, part in self.complete().items():
            values = ("values", "<f4", (part.width,))
            place = [("recording", "<i8"), ("start", "<f8"), ("end", "<f8"), ("silent", "?")]
            dtype = np.dtype([*place, values])
            rows = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // dtype.itemsize))
            with open_binary(self._rows(number)) as file:
                while len(chunk := np.fromfile(file, dtype, rows)):
                    yield chunk

    def publish(
        self, write: Callable[[Path], None], note: Callable[[Path], None] | None = None
    ) -> None:
        """Write the output with a function, move it into place, and remove the parts.

        Args:
            write: writes it to the path that it gets.
            note: notes beside the output what it is to hold, from the file that it gets.
        """
        with written_aside(self.folder / _JOINED) as aside:
            write(aside)
        if note is not None:
            note(self.folder / _JOINED)
        (self.folder / _JOINED).replace(self._out)
        sync(self._out.parent)
        self.remove()

    def remove(self) -> None:
        """Remove the parts."""
        discard(self.folder)

    def _rows(self, number: int) -> Path:
        return self.folder / f"{number:08}.rows"


class PartWriter:
    """Writes the rows of a part as they are computed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rows = 0
        self._width = 0
        self._recordings = 0
        self._seconds = 0.0
        self._rejected: list[Rejected] = []
        # Bytes and rows up to the end of the last recording.
        self._bytes_before = 0
        self._rows_before = 0

    def add(self, row: Row) -> None:
        """Write a row."""
        self._file.write(_ROW_HEAD.pack(row.recording, row.start, row.end, row.silent))
        self._file.write(row.values.astype("<f4").tobytes())
        self._rows += 1
        self._width = len(row.values)

    def end(self, seconds: float, rejected: Rejected | None, *, keep: bool) -> None:
        """End a recording.

        Args:
            seconds: seconds of it that were decoded.
            rejected: why it could not be read to its end; None if it was.
            keep: whether a recording that could not be read to its end keeps its rows.
        """
        if rejected is not None:
            self._rejected.append(rejected)
            if not keep:
                self._file.seek(self._bytes_before)
                self._file.truncate()
                self._rows = self._rows_before
        self._bytes_before = self._file.tell()
        self._rows_before = self._rows
        self._recordings += 1
        self._seconds += seconds

    def part(self) -> Part:
        """Return the facts about what was written."""
        width = self._width if self._rows else 0
        return Part(self._rows, width, self._recordings, self._seconds, tuple(self._rejected))
