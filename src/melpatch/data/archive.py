"""Write one shard: clips are decoded and encoded into an ordinary tar archive."""

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
from melpatch.data.row import COLUMNS, PACKED_COLUMNS
from melpatch.data.shards import UNFINISHED, Shard, digest, shard_name
from melpatch.data.sound import Samples, decode, decode_windows
from melpatch.errors import AudioError, MelpatchError, UnreachableError
from melpatch.faults import let_pass
from melpatch.opening import LOG_BYTES, read_text

INDEX_COLUMNS = (*COLUMNS, *PACKED_COLUMNS, "member", "name")
"""Columns of an index: those of every CSV file, the member in the archive and the original name."""
# Longest clip that is decoded in one piece, in seconds.
_LONG = 300.0
# Bytes read at a time.
_READ = 1 << 20
# WAV files state their size in 32 bits; some of it is left for the header.
_LARGEST_WAV = (1 << 32) - (1 << 10)
# A clip with a larger share of samples beyond full scale is left out.
_MOST_CLIPPED = 0.1


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How clips are stored.

    Attributes:
        sample_rate: in Hz.
        codec: ``flac`` or ``pcm``.
        shard_mib: 16-bit samples in a shard before encoding, in MiB.
    """

    sample_rate: int
    codec: Codec
    shard_mib: float


@dataclass(frozen=True)
class ShardJob:
    """One shard to write: its number, folder and settings, its clips and their original names.

    ``rejected`` are clips that have been left out before.
    """

    number: int
    folder: Path
    settings: Packing
    clips: tuple[Clip, ...]
    names: tuple[str, ...]
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class PackedShard:
    """The record of a finished shard.

    Attributes:
        shard: the archive; a shard without clips has no file.
        seconds: total length of its clips.
        clipped: number of clips with samples beyond full scale.
        lines: its rows of the index.
        rejected: clips that could not be read, with the reasons.
    """

    shard: Shard
    seconds: float
    clipped: int
    lines: tuple[tuple[str, ...], ...]
    rejected: tuple[Rejected, ...]


def write_shard(job: ShardJob, done: Callable[[], None]) -> PackedShard:
    """Write a shard and its record; a shard that matches its record already is not written again.

    Args:
        job: the shard to write.
        done: called after each clip.

    Raises:
        OSError: the shard cannot be written.
    """
    path = job.folder / shard_name(job.number)
    record = job.folder / UNFINISHED / f"{path.stem}.json"
    packed = _finished(path, record)
    if packed is None:
        packed = _write(job, path, done)
        # Not written atomically: a record that a crash has truncated is invalid JSON.
        record.write_text(json.dumps(to_dict(packed)), encoding="utf-8")
    else:
        for _ in job.clips:
            done()
    return packed


def _finished(path: Path, record: Path) -> PackedShard | None:
    """Return the record of a shard that is complete and intact; None otherwise."""
    try:
        packed = from_dict(PackedShard, json.loads(read_text(record, LOG_BYTES)))
        if not packed.lines:
            return packed
        shard = packed.shard
        intact = path.stat().st_size == shard.size and digest(path) == shard.sha256
    # The record or the shard is missing or truncated.
    except (OSError, ValueError, MelpatchError) as error:
        let_pass(error)
        return None
    if not intact:
        return None
    return packed


def _write(job: ShardJob, path: Path, done: Callable[[], None]) -> PackedShard:
    """Write the archive under a temporary name, and rename it when it is complete."""
    aside = path.with_name(f".{path.name}.partial")
    stored: list[_Stored] = []
    rejected = [*job.rejected]
    with (
        aside.open("wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for clip, name in zip(job.clips, job.names, strict=True):
            try:
                stored.append(_store(archive, clip, name, path, job.settings))
            # The clip may be intact, so packing stops here and can be resumed.
            except UnreachableError:
                raise
            except AudioError as error:
                rejected.append(Rejected(clip.location, error.reason))
            done()
    shard = Shard(path.name, aside.stat().st_size, digest(aside), len(stored))
    if stored:
        move_into_place(aside, path)
    else:
        aside.unlink()
    seconds = sum((entry.clip.duration for entry in stored), 0.0)
    clipped = sum(entry.clipped for entry in stored)
    lines = tuple(
        (*csv_cells(entry.clip, job.folder), entry.member, entry.name) for entry in stored
    )
    return PackedShard(shard, seconds, clipped, lines, tuple(rejected))


class _Stored(NamedTuple):
    """A clip in the shard, its member, its original name, and whether samples were clipped."""

    clip: Clip
    member: str
    name: str
    clipped: bool


def _store(
    archive: tarfile.TarFile, clip: Clip, name: str, path: Path, settings: Packing
) -> _Stored:
    """Decode a clip and append it to an archive.

    Raises:
        AudioError: the clip cannot be read or stored.
    """
    rate = settings.sample_rate
    if settings.codec == "pcm" and 2 * clip.duration * rate > _LARGEST_WAV:
        reason = "is longer than a WAV file can be"
        raise AudioError(clip.location, reason, "pack it as flac, or list it in parts")
    with _buffer(clip, path.parent) as content:
        coded = write_sound(_pieces(clip, rate), rate, settings.codec, content)
        if coded.clipped > _MOST_CLIPPED * coded.samples:
            share = f"{coded.clipped / coded.samples:.0%}"
            reason = f"has {share} of its samples beyond full scale, up to {coded.peak:.3g}"
            raise AudioError(clip.location, reason, "scale it to [-1, 1] first")
        # A stated length that means the same samples is kept, so that crops are those of the file.
        seconds = coded.samples / rate
        if abs(seconds - clip.duration) * rate < 1:
            seconds = clip.duration
        stem = member_name(clip.key)
        file = f"{stem}.{ENDINGS[settings.codec]}"
        packed = _add(archive, file, content)
    about = {
        "key": clip.key,
        "path": name,
        "start": clip.start,
        "duration": seconds,
        "sample_rate": rate,
        "labels": clip.labels,
        "split": clip.split,
        "group": clip.group,
    }
    _add(archive, f"{stem}.json", io.BytesIO(json.dumps(about, ensure_ascii=False).encode()))
    stored = Clip(path, clip.key, 0.0, seconds, clip.labels, clip.split, clip.group, *packed)
    return _Stored(stored, file, name, coded.clipped > 0)


def _buffer(clip: Clip, folder: Path) -> io.BufferedIOBase:
    """Return an empty file for an encoded clip: in memory, or on disk if the clip is long."""
    if clip.duration > _LONG:
        return TemporaryFile(dir=folder)
    return io.BytesIO()


def _pieces(clip: Clip, rate: int) -> Iterator[Samples]:
    """Yield a clip's samples, a long clip in pieces."""
    if clip.duration <= _LONG:
        yield decode(clip, rate)
    else:
        yield from (wave for _, wave in decode_windows(clip, _LONG, _LONG, rate))


def _add(archive: tarfile.TarFile, name: str, content: io.BufferedIOBase) -> tuple[int, int, int]:
    """Append a member to an archive; return offset, size and CRC-32 of its content.

    The member has no owner and no time, so that archives are reproducible.
    """
    header = tarfile.TarInfo(name)
    # The content follows a header of one block.
    offset = archive.offset + tarfile.BLOCKSIZE
    checksum = 0
    header.size = content.seek(0, os.SEEK_END)
    content.seek(0)
    while part := content.read(_READ):
        checksum = crc32(part, checksum)
    content.seek(0)
    archive.addfile(header, content)
    return offset, header.size, checksum
