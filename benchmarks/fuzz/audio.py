"""Damaged sound files of every format that is read: no crash, no hang, and what is said of one is what it holds.

Each case damages a file, splices two, or puts tags around one. It is decoded as ``melpatch prepare`` does. Whatever
is said to be whole must be read by the other commands, in the length that was said; so must each good stretch.

    python benchmarks/fuzz/audio.py --seed 0 --count 2000
"""

import io
import random
import sys
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from driver import Case, main
from mutations import damaged

from melpatch.audio.ffmpeg_sound import pyav
from melpatch.audio.files import probe, read, stream
from melpatch.audio.mpeg import frame_header
from melpatch.audio.survey import Survey, survey
from melpatch.errors import AudioError

RATE = 16_000
FORMATS = (
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "ULAW"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
)
LENGTHS_APART = 0.11
"""Seconds by which two ways of reading may differ: padding of lossy formats."""


def prepare(folder: Path) -> list[tuple[str, bytes]]:
    """Return the files that all cases start from, of one and two channels, 1.5 s long."""
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, (RATE * 3 // 2, 2)).astype(np.float32)
    noise[: RATE // 2] *= 1e-3
    files = []
    for kind, codec in FORMATS:
        for channels in (1, 2):
            file = io.BytesIO()
            soundfile.write(file, noise[:, :channels], RATE, format=kind, subtype=codec)
            files.append((f"{kind} {codec} {channels}", file.getvalue()))
    variable = io.BytesIO()
    how = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE"}
    soundfile.write(variable, noise, RATE, **how)
    content = variable.getvalue()
    files.append(("MP3 variable", content))
    first = frame_header(content[:4])
    if first:
        files.append(("MP3 variable, length not stated", content[first.size :]))
    return files + phone_files(noise)


def phone_files(noise: np.ndarray) -> list[tuple[str, bytes]]:
    """Return files of formats that PyAV reads; none where it is not installed."""
    av = pyav()
    files = []
    for kind, codec in (("ipod", "aac"), ("adts", "aac"), ("matroska", "aac")) if av else ():
        file = io.BytesIO()
        with av.open(file, "w", format=kind) as container:
            waves = container.add_stream(codec, rate=RATE, layout="mono")
            frame = av.AudioFrame.from_ndarray(noise[:, :1].T.copy(), "fltp", "mono")
            frame.sample_rate = RATE
            container.mux(waves.encode(frame))
            container.mux(waves.encode())
        files.append((f"{kind} {codec}", file.getvalue()))
    return files


def case(rng: random.Random, base: list[tuple[str, bytes]], folder: Path) -> Case:
    """Return a damaged file, and the reading of it."""
    name, content = rng.choice(base)
    kind = rng.randrange(10)
    if kind == 0:
        other, more = rng.choice(base)
        content += more
        name = f"{name}, then {other}"
    elif kind == 1:
        size = rng.randrange(3000)
        content = b"ID3\x04\0\0" + bytes((0, 0, size >> 7, size & 127)) + bytes(size) + content
        name = f"{name} behind a tag"
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        # Headers matter most, and are small.
        if rng.random() < 0.5:
            head, how = damaged(rng, content[:256])
            content = head + content[256:]
        else:
            content, how = damaged(rng, content)
        name = f"{name}, {how}"
    path = folder / "x.bin"
    path.write_bytes(content)
    return Case(name, call=partial(examine, path))


def examine(path: Path) -> None:
    """Read a file in all ways; raise AssertionError where they contradict each other."""
    seen = survey(path)
    for start, end in seen.stretches:
        assert 0 <= start < end, f"a stretch from {start} to {end}"
        wave, rate = read(path, start=start, duration=end - start, sample_rate=8000)
        assert np.isfinite(wave).all(), "samples that are not finite"
        missing = end - start - len(wave) / rate
        assert missing < LENGTHS_APART, f"{missing} s of a good stretch are missing"
    check_whole(path, seen)


def check_whole(path: Path, seen: Survey) -> None:
    """Check that a file is read to its end exactly if it is said to be whole."""
    try:
        info = probe(path)
        wave, rate = read(path)
        last, piece = [*stream(path, 0.4, 0.4)][-1]
    except AudioError as error:
        if seen.error is None:
            raise AssertionError(f"said to be whole, but {error}") from error
        return
    assert seen.error is None, f"read to its end, but {seen.error}"
    end = round(last * rate) + len(piece)
    assert end == len(wave), f"windows end at sample {end} of {len(wave)}"
    assert abs(len(wave) / rate - seen.seconds) < LENGTHS_APART, "another length than was said"
    if info.duration is not None:
        apart = abs(info.duration - seen.seconds)
        assert apart <= LENGTHS_APART, f"the header states {apart} s more or less"


if __name__ == "__main__":
    sys.exit(main(prepare, case))
