"""An output in the making: rows in numbered parts, each of them complete or not there, so that a killed run goes on.

Beside ``OUT`` lies the folder ``OUT.parts`` while it is made. A part holds the rows of some recordings that follow one
another, and nothing in it hangs on other parts. So it does not matter which process makes it, before or after a crash.
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
from melpatch.atomic import clear_partial, discard, sync, written_aside
from melpatch.data.clip import Clip
from melpatch.data.corpus import Rejected
from melpatch.errors import CheckpointError, DataError
from melpatch.inference.rows import Row
from melpatch.inference.windows import NumberedClips

_ABOUT, _JOINED = "about.json", "joined"
_HEAD = struct.Struct("<qdd")  # recording, start, end; the values follow
_BYTES, _RECORDINGS = (
    1 << 26,
    512,
)  # a part has no more of sound files or of recordings, but has one recording at least
_CHUNK_BYTES, _CHUNK_ROWS = 1 << 24, 1 << 12  # so much is read back at a time, at most


@dataclass(frozen=True)
class Part:
    """What is known of a complete part.

    Attributes:
        rows: how many it has.
        width: how many values a row has; 0 where there is no row.
        recordings: how many it was made of.
        seconds: how much sound they hold.
        rejected: those that could not be read.
    """

    rows: int
    width: int
    recordings: int
    seconds: float
    rejected: tuple[Rejected, ...]


def groups(recordings: Sequence[Clip]) -> list[NumberedClips]:
    """Return recordings, numbered, in groups for a part each: of 64 MiB or one recording, and of 512 at most."""
    found: list[list[tuple[int, Clip]]] = []
    held = _BYTES
    for number, clip in enumerate(recordings):
        size = clip.size or (clip.path.stat().st_size if clip.path.is_file() else 0)
        if not found or held + size > _BYTES or len(found[-1]) == _RECORDINGS:
            found.append([])
            held = 0
        found[-1].append((number, clip))
        held += size
    return [*found]


class Parts:
    """The folder of an output's parts.

    Args:
        out: the output.
        about: all that the rows hang on, by name; what goes on with a killed run must have the same.
        resume: whether to go on with a killed run, if there is one.

    Raises:
        CheckpointError: a killed run left parts, and it is not to be gone on with, or with another ``about``.
        DataError: the folder cannot be made, or not all processes see it.
    """

    def __init__(self, out: Path, about: Mapping[str, Any], *, resume: bool) -> None:
        self._out, self.folder = out, out.with_name(f"{out.name}.parts")
        self._about = json.dumps(about, indent=1)
        if distributed.is_rank_zero():
            self._prepare(resume)
        distributed.barrier()
        try:
            same = (self.folder / _ABOUT).read_text(encoding="utf-8") == self._about
        except OSError as error:
            reason = "which all processes have to see; choose another --out"
            raise DataError(
                f"{self.folder}: cannot be read ({error.strerror}), {reason}"
            ) from error
        if not same:
            raise DataError(
                f"{self.folder}: process {distributed.rank()} lists other recordings, or has another model"
            )

    def _prepare(self, resume: bool) -> None:
        if self.complete():
            if not resume:
                raise CheckpointError(
                    f"{self.folder}: holds what a run has done that was cut off; add --resume to go on, or delete it"
                )
            self._compare()
        elif (
            self.folder.is_dir()
            and any(self.folder.iterdir())
            and not (self.folder / _ABOUT).exists()
        ):
            raise DataError(
                f"{self.folder}: holds something else, and is where parts are kept; choose another --out"
            )
        try:
            if not self.complete():
                shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            clear_partial(self.folder)
            with written_aside(self.folder / _ABOUT) as aside:
                aside.write_text(self._about, encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be written ({error.strerror}); choose another --out"
            ) from error

    def _compare(self) -> None:
        known, wanted = (
            json.loads((self.folder / _ABOUT).read_text(encoding="utf-8")),
            json.loads(self._about),
        )
        for name in known.keys() | wanted.keys():
            if known.get(name) != wanted.get(name):
                raise CheckpointError(
                    f"{self.folder}: was begun with {name} = {known.get(name)!r}, now {wanted.get(name)!r}; "
                    "give what it was begun with, or delete the folder to begin anew"
                )

    def complete(self) -> dict[int, Part]:
        """Return the complete parts by their numbers, in their order."""
        found = {}
        for path in sorted(self.folder.glob("[0-9]*.json")):
            data = json.loads(path.read_text(encoding="utf-8"))
            data["rejected"] = tuple(Rejected(**one) for one in data["rejected"])
            found[int(path.stem)] = Part(**data)
        return found

    @contextmanager
    def written(self, number: int) -> Iterator["PartWriter"]:
        """Give what writes a part, which is there, complete, once the body has ended well."""
        with written_aside(self._rows(number)) as aside, aside.open("wb") as file:
            writer = PartWriter(file)
            yield writer
        with written_aside(self.folder / f"{number:08}.json") as aside:
            aside.write_text(json.dumps(asdict(writer.part())), encoding="utf-8")

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the rows of all complete parts, so many at a time as memory may hold: arrays with the fields
        ``recording``, ``start``, ``end`` and ``values``."""
        for number, part in self.complete().items():
            kind = np.dtype(
                [
                    ("recording", "<i8"),
                    ("start", "<f8"),
                    ("end", "<f8"),
                    ("values", "<f4", (part.width,)),
                ]
            )
            with self._rows(number).open("rb") as file:
                count = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // kind.itemsize))
                while len(chunk := np.fromfile(file, kind, count)):
                    yield chunk

    def publish(self, write: Callable[[Path], None]) -> None:
        """Have the output written, put it in its place, and remove the parts."""
        with written_aside(self.folder / _JOINED) as aside:
            write(aside)
        (self.folder / _JOINED).replace(self._out)
        sync(self._out.parent)
        self.remove()

    def remove(self) -> None:
        """Remove the parts."""
        discard(self.folder)

    def _rows(self, number: int) -> Path:
        return self.folder / f"{number:08}.rows"


class PartWriter:
    """Takes the rows of a part as they come."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._rows, self._width, self._recordings, self._seconds = file, 0, 0, 0, 0.0
        self._rejected: list[Rejected] = []
        self._before = (0, 0)  # bytes and rows up to the last recording's end

    def add(self, row: Row) -> None:
        """Write a row."""
        self._file.write(
            _HEAD.pack(row.recording, row.start, row.end) + row.values.astype("<f4").tobytes()
        )
        self._rows, self._width = self._rows + 1, len(row.values)

    def end(self, seconds: float, rejected: Rejected | None, *, keep: bool) -> None:
        """Note that a recording has no further rows.

        Args:
            seconds: how much of it was heard.
            rejected: why it could not be read, or not to its end.
            keep: whether the rows of one that could not be read to its end stay.
        """
        if rejected is not None:
            self._rejected.append(rejected)
            if not keep:
                self._file.seek(self._before[0])
                self._file.truncate()
                self._rows = self._before[1]
        self._before = self._file.tell(), self._rows
        self._recordings, self._seconds = self._recordings + 1, self._seconds + seconds

    def part(self) -> Part:
        """Return what there is to know of what was written."""
        return Part(
            self._rows,
            self._width if self._rows else 0,
            self._recordings,
            self._seconds,
            (*self._rejected,),
        )
