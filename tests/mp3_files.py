"""MP3 files as encoders leave them out there: tags, variable rates, no frame that states the length."""

import io
from functools import cache

import numpy as np
import soundfile

from melpatch.audio.mpeg import frame_header

RATE = 44_100


@cache
def loud_and_silent(seconds, rate=RATE, channels=1):
    """Return sound whose first half is nearly silent, so that a variable bit rate does vary."""
    samples = round(seconds * rate)
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (samples, channels))
    wave[: samples // 2] *= 1e-4
    return wave.astype(np.float32)


@cache
def mp3(seconds=4.0, mode="CONSTANT", rate=RATE, channels=1):
    """Return an MP3 file with the frame of libsndfile's encoder that states its length."""
    file = io.BytesIO()
    soundfile.write(
        file,
        loud_and_silent(seconds, rate, channels),
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode=mode,
        compression_level=0.5,
    )
    return file.getvalue()


def frames_only(content):
    """Return an MP3 file without its first frame, which states the length."""
    return content[frame_header(content[:4]).size :]


def id3(size=60_000):
    """Return an ID3v2 tag, as large as one with a picture of the cover."""
    digits = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + digits + b"\xff\xd8\xff\xe0" + bytes(size - 4)


ID3V1 = b"TAG" + b"Dawn chorus".ljust(125, b"\0")
