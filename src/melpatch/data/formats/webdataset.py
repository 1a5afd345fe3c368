"""WebDataset's tar archives, made by any tool: ``KEY.wav`` with ``KEY.json``, ``KEY.cls`` or ``KEY.txt``.

Members that share a key are one sample; a key goes up to the first dot of a name. Fields of the
JSON become columns, and so do the other members: ``cls`` and ``txt``. The class is that of ``cls``
where no field has a usual name of one. Sound is read where it lies in the archive, without
unpacking.
"""

import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from melpatch.data.columns import is_time, is_usual
from melpatch.data.file_names import path_text, readable
from melpatch.data.formats.base import Format, split_of_file, visible_files
from melpatch.data.json_lines import GZIP
from melpatch.data.json_tables import cell
from melpatch.data.row import KEY, LABEL, MEMBER, PACKED_COLUMNS, PATH, Table
from melpatch.errors import DataError
from melpatch.opening import open_binary
from melpatch.progress import track

_SOUND = frozenset("aac aif aiff au flac m4a mp3 oga ogg opus wav wave wma".split())  # noqa: SIM905
_JSON = "json"
_CLASS = "cls"
_TEXTS = frozenset({_JSON, _CLASS, "txt", "text", "label"})
_PLACE = (PATH, *PACKED_COLUMNS, MEMBER)
_READ = 1 << 20
_LONGEST_TEXT = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
# What tarfile raises for archives that are damaged.
_DAMAGE = (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError)


class WebDataset(Format):
    """Tar archives of samples, as of WebDataset."""

    what = "WebDataset"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether a file begins with the header of a tar archive."""
        try:
            tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            return False
        return True

    def files(self, folder: Path, names: Sequence[str]) -> Sequence[Path]:
        """Return the tar archives anywhere below a folder."""
        return visible_files(folder, ".tar")

    def table(self, path: Path) -> Table:
        """Return where in the archive the sound of each sample is, and what is known of it."""
        with open_binary(path) as file:
            if file.read(len(GZIP)) == GZIP:
                raise DataError(
                    f"{path}: compressed as a whole, so that no clip can be read from its middle; "
                    "unpack it with gunzip"
                )
        samples = [*track(_samples(path), None, f"reading {path.name}", "samples")]
        facts = [*dict.fromkeys(name for sample in samples for name in sample.facts)]
        # Times are those of the recording that the sound was cut from, and keys are often numbers.
        facts = [name for name in facts if name not in (*_PLACE, KEY) and not is_time(name)]
        label = ""
        if _CLASS in facts and not any(is_usual(LABEL, name) for name in facts):
            label = _CLASS
        lines = ((sample.number, _cells(path, sample, facts)) for sample in samples)
        return Table([*_PLACE, *facts], lines, label, split_of_file(path), unit="sample")


class _Member(NamedTuple):
    """A file in an archive.

    Attributes:
        key: the sample that it belongs to.
        ending: what it holds, such as ``wav``.
        name: its name.
        offset: first byte of its content in the archive.
        size: in bytes.
        crc32: checksum of the content.
        text: the content, if it is a text.
        fault: why it cannot be used; ``""``: it can.
    """

    key: str
    ending: str
    name: str
    offset: int = 0
    size: int = 0
    crc32: int = 0
    text: str = ""
    fault: str = ""


class _Sample(NamedTuple):
    """The members of one key: number from 1, sounds, facts by name, and what is wrong with them."""

    number: int
    sounds: list[_Member]
    facts: dict[str, str]
    fault: str


def _samples(path: Path) -> Iterator[_Sample]:
    seen = set()
    groups = groupby(_members(path), key=lambda member: member.key)
    for number, (key, group) in enumerate(groups, 1):
        members = [*group]
        facts: dict[str, str] = {}
        faults = [member.fault for member in members if member.fault]
        if key in seen:
            faults.append(f"sample {key!r} occurs again; keep one")
        seen.add(key)
        for member in members:
            try:
                facts |= _facts(member)
            except ValueError as error:
                faults.append(f"{member.name} is not JSON ({error})")
        sounds = [member for member in members if member.ending in _SOUND]
        if len(sounds) != 1 and not faults:
            listed = ", ".join(member.name for member in sounds) or "no sound"
            faults.append(f"sample {key!r} has {listed}; a sample has one sound")
        yield _Sample(number, sounds, facts, faults[0] if faults else "")


def _facts(member: _Member) -> dict[str, str]:
    """Return what a member of text says, by name.

    Raises:
        ValueError: it is no JSON object.
    """
    if member.ending not in _TEXTS or member.fault:
        return {}
    if member.ending != _JSON:
        return {member.ending: member.text.strip()}
    try:
        content = json.loads(member.text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}, not an object")
    return {name: text for name, value in content.items() if (text := cell(value)) is not None}


def _members(path: Path) -> Iterator[_Member]:
    """Yield the members of an archive that are sound or text; damage is a member without a key."""
    with open_binary(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (header := archive.next()) is not None:
                    # It would keep the headers of a million members.
                    archive.members = []  # type: ignore[attr-defined]
                    member = _member(file, header, size)
                    if member is not None:
                        yield member
                file.seek(archive.offset)
                # It ends with zeros, and tarfile takes anything else as an end too.
                if file.read(_BLOCK).strip(b"\0"):
                    raise tarfile.ReadError(f"no header at byte {archive.offset}")
        except _DAMAGE as error:
            fault = f"damaged ({error}), and what follows is left out; copy the archive again"
            yield _Member("", "", "", fault=fault)


def _member(file: BufferedIOBase, header: tarfile.TarInfo, size: int) -> _Member | None:
    """Return a file of an archive with its checksum or text; None if it is neither sound nor text."""
    folder, _, base = header.name.rpartition("/")
    stem, _, endings = base.partition(".")
    ending = endings.rpartition(".")[2].lower()
    if not header.isreg() or not stem or ending not in _SOUND | _TEXTS:
        return None
    key = readable(f"{folder}/{stem}" if folder else stem)
    member = _Member(key, ending, readable(header.name), header.offset_data, header.size)
    if header.issparse() or header.offset_data + header.size > size:
        return member._replace(fault=f"{member.name} is not whole; copy the archive again")
    place = file.tell()
    file.seek(header.offset_data)
    if ending in _TEXTS:
        if header.size > _LONGEST_TEXT:
            fault = f"{member.name} has more than {_LONGEST_TEXT:,} bytes of text"
            return member._replace(fault=fault)
        member = member._replace(text=file.read(header.size).decode("utf-8", "replace"))
    else:
        checksum = 0
        for start in range(0, header.size, _READ):
            checksum = zlib.crc32(file.read(min(_READ, header.size - start)), checksum)
        member = member._replace(crc32=checksum)
    file.seek(place)
    return member


def _cells(path: Path, sample: _Sample, facts: Sequence[str]) -> list[str] | str:
    """Return the cells of a sample, or why it has none."""
    if sample.fault:
        return sample.fault
    sound = sample.sounds[0]
    if not sound.size:
        return f"{sound.name} is empty (0 bytes)"
    place = [str(sound.offset), str(sound.size), str(sound.crc32), sound.name]
    return [path_text(path.absolute()), *place, *(sample.facts.get(name, "") for name in facts)]
