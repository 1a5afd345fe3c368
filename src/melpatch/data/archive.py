"""One shard: clips are decoded and coded into a tar archive, which an ordinary tar reader opens."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple
from zlib import crc32

from melpatch.atomic import move_into_place
from melpatch.audio.sound_writer import ENDINGS, Codec, write_sound
from melpatch.config import from_dict, to_dict
from melpatch.data.clip import Clip, member_name
from melpatch.data.corpus import Rejected
from melpatch.data.manifest import csv_cells
from melpatch.data.shards import UNFINISHED, Shard, digest, shard_name
from melpatch.data.sound import Samples, decode, decode_windows
from melpatch.data.sources import COLUMNS, PACKED_COLUMNS
from melpatch.errors import AudioError, MelpatchError, UnreachableError

INDEX_COLUMNS = (*COLUMNS, *PACKED_COLUMNS, "member", "name")
"""What an index says of a clip: as every CSV file, and what it is called in the archive and was called before."""
_LONG = 300.0  # seconds of a clip that are held in memory at once
_READ = 1 << 20  # bytes
_LARGEST_WAV = (1 << 32) - (1 << 10)  # bytes of samples
_MOST_BEYOND = 0.1  # share of samples beyond full scale from which on cutting them off leaves noise


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How clips are stored.

    Attributes:
        sample_rate: in Hz.
        codec: ``flac`` or ``pcm``.
        shard_mib: mebibytes of samples in a shard, before they are coded.
    """

    sample_rate: int
    codec: Codec
    shard_mib: float


@dataclass(frozen=True)
class ShardJob:
    """A shard to be written: into which folder, of which clips, and what these are called outside."""

    number: int
    folder: Path
    settings: Packing
    clips: tuple[Clip, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class PackedShard:
    """What is known of a finished shard.

    Attributes:
        shard: the archive; one without clips has no file.
        seconds: length of its clips together.
        clipped: how many clips had samples beyond full scale.
        lines: its part of the index.
        rejected: clips that could not be read, with the reason.
    """

    shard: Shard
    seconds: float
    clipped: int
    lines: tuple[tuple[str, ...], ...]
    rejected: tuple[Rejected, ...]


def write_shard(job: ShardJob, done: Callable[[], None]) -> PackedShard:
    """Write a shard, and a note of what is in it; one that is there already, as its note has it, is left as it is.

    Args:
        job: what to write.
        done: called after each clip.

    Raises:
        OSError: it cannot be written.
    """
    path = job.folder / shard_name(job.number)
    note = job.folder / UNFINISHED / f"{path.stem}.json"
    if (packed := _finished(path, note)) is None:
        packed = _write(job, path, done)
        note.write_text(json.dumps(to_dict(packed)), encoding="utf-8")  # cut short, it is no JSON
    else:
        for _ in job.clips:
            done()
    return packed


def _finished(path: Path, note: Path) -> PackedShard | None:
    try:
        packed = from_dict(PackedShard, json.loads(note.read_text(encoding="utf-8")))
        whole = not packed.lines or (
            path.stat().st_size == packed.shard.size and digest(path) == packed.shard.sha256
        )
    except (
        OSError,
        ValueError,
        MelpatchError,
    ):  # there is none, or a crash of the machine has cut it short
        return None
    return packed if whole else None


def _write(job: ShardJob, path: Path, done: Callable[[], None]) -> PackedShard:
    aside = path.with_name(f".{path.name}.partial")
    stored: list[_Stored] = []
    rejected: list[Rejected] = []
    with (
        aside.open("wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for clip, name in zip(job.clips, job.names, strict=True):
            try:
                stored.append(_store(archive, clip, name, path, job.settings))
            except UnreachableError:
                raise  # for the clip may be well: what is finished is kept, and it goes on later
            except AudioError as error:
                rejected.append(Rejected(clip.location, error.reason))
            done()
    shard = Shard(path.name, aside.stat().st_size, digest(aside), len(stored))
    if stored:
        move_into_place(aside, path)
    else:
        aside.unlink()
    seconds, clipped = (
        sum((each.clip.duration for each in stored), 0.0),
        sum(each.clipped for each in stored),
    )
    lines = tuple((*csv_cells(each.clip, job.folder), each.member, each.name) for each in stored)
    return PackedShard(shard, seconds, clipped, lines, tuple(rejected))


class _Stored(NamedTuple):
    """A clip as it lies in the shard, its member there, its name outside, and whether samples were cut off."""

    clip: Clip
    member: str
    name: str
    clipped: bool


def _store(
    archive: tarfile.TarFile, clip: Clip, name: str, path: Path, settings: Packing
) -> _Stored:
    """Decode a clip and append it to an archive; an AudioError says why that cannot be."""
    rate = settings.sample_rate
    if settings.codec == "pcm" and 2 * clip.duration * rate > _LARGEST_WAV:
        raise AudioError(
            clip.location,
            "is longer than a WAV file can be",
            "pack it as flac, or list it in parts",
        )
    with TemporaryFile(dir=path.parent) if clip.duration > _LONG else io.BytesIO() as content:
        coded = write_sound(_pieces(clip, rate), rate, settings.codec, content)
        if coded.clipped > _MOST_BEYOND * coded.samples:
            share = f"{coded.clipped / coded.samples:.0%}"
            reason = f"has {share} of its samples beyond full scale, up to {coded.peak:.3g}"
            raise AudioError(clip.location, reason, "scale it to [-1, 1] first")
        # The stated length is kept where it means the same samples, so that crops fall where they fall in the file.
        exact = coded.samples / rate
        seconds = clip.duration if abs(exact - clip.duration) * rate < 1 else exact
        stem = member_name(clip.key)
        file = f"{stem}.{ENDINGS[settings.codec]}"
        packed = _add(archive, file, content)
    about = {
        "key": clip.key,
        "path": name,
        "start": clip.start,
        "duration": seconds,
        "sample_rate": rate,
    }
    about |= {"labels": clip.labels, "split": clip.split, "group": clip.group}
    _add(archive, f"{stem}.json", io.BytesIO(json.dumps(about, ensure_ascii=False).encode()))
    kept = Clip(path, clip.key, 0.0, seconds, clip.labels, clip.split, clip.group, *packed)
    return _Stored(kept, file, name, coded.clipped > 0)


def _pieces(clip: Clip, rate: int) -> Iterator[Samples]:
    """Yield a clip's samples: all at once, or where they are many, one piece after the other."""
    if clip.duration <= _LONG:
        yield decode(clip, rate)
    else:
        yield from (wave for _, wave in decode_windows(clip, _LONG, _LONG, rate))


def _add(archive: tarfile.TarFile, name: str, content: io.BufferedIOBase) -> tuple[int, int, int]:
    """Append a member, which has no owner and no time so that archives repeat; return offset, size and checksum of its
    content."""
    header, check, offset = tarfile.TarInfo(name), 0, archive.offset + tarfile.BLOCKSIZE
    header.size = content.seek(0, os.SEEK_END)
    content.seek(0)
    while part := content.read(_READ):
        check = crc32(part, check)
    content.seek(0)
    archive.addfile(header, content)
    return offset, header.size, check
