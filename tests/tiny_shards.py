"""A folder of short sounds, and the same packed into a few shards."""

from pathlib import Path

import numpy as np
import soundfile

from melpatch.data import remote, transfers
from melpatch.data.archive import Packing
from melpatch.data.manifest import Corpus, load_corpus
from melpatch.data.packing import pack

RATE = 8000
SECONDS = (0.4, 0.15, 0.33, 0.4, 0.22, 0.9, 0.4, 0.18, 0.29, 0.6)


def write_sounds(
    folder: Path, seconds: tuple[float, ...] = SECONDS, labels: tuple[str, ...] = ("wren", "owl")
) -> Path:
    """Write a 16-bit noise of each length, other for every number, the labels in turn as sub-folders."""
    for number, length in enumerate(seconds):
        wave = np.random.default_rng(number).uniform(-0.5, 0.5, round(length * RATE))
        path = folder / labels[number % len(labels)] / f"{number:03}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, RATE, subtype="PCM_16")
    return folder


def packed(corpus: Corpus, out: Path, *, workers: int = 0, **changes: object) -> Path:
    """Pack a corpus into shards of a second of sound at its own rate, unless told otherwise, and return the folder."""
    settings = {"sample_rate": RATE, "codec": "flac", "shard_mib": 2 * RATE / 2**20} | changes
    names = [clip.path.name for clip in corpus.clips]
    pack(corpus, names, out, Packing(**settings), workers=workers, command="melpatch pack sounds")
    return out


def shards(folder: Path, **changes: object) -> Path:
    """Return a folder of three shards with ten clips."""
    return packed(load_corpus([write_sounds(folder / "sounds")]), folder / "shards", **changes)


def content(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder, hidden ones too, with their bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def empty_cache(folder: Path, monkeypatch, retry_after: tuple[float, ...] = ()) -> Path:
    """Let remote shards go into an empty folder, from stores that have not failed yet; return it."""
    monkeypatch.setenv("MELPATCH_CACHE", str(folder / "cache"))
    monkeypatch.setattr(remote, "_RETRY_AFTER", retry_after)
    remote._mirror.cache_clear()
    transfers.forget_stores()
    return folder / "cache"
