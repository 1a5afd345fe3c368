"""A disk that fails, or Ctrl-C, while a file is decoded: told as it is, not taken for the end of the file."""

import errno
import io
import os

import numpy as np
import pytest
import soundfile

from melpatch.audio import decoders
from melpatch.audio.files import probe
from melpatch.audio.open_file import OpenFile
from melpatch.audio.sound_file import open_sound
from melpatch.errors import AudioError, UnreachableError

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


@pytest.fixture(scope="module", params=[*FORMATS, "aac"])
def path(request, tmp_path_factory):
    file = tmp_path_factory.mktemp("sounds") / f"a.{request.param}"
    noise = np.random.default_rng(0).normal(scale=0.1, size=320_000)
    if request.param not in FORMATS:
        write_by_ffmpeg(file, noise)
        return file
    container, codec = FORMATS[request.param]
    soundfile.write(file, noise, 16_000, format=container, subtype=codec)
    return file


def write_by_ffmpeg(file, wave):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(file), "w", format="adts") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


class Failing(io.FileIO):
    """A file of which nothing can be read from some byte on."""

    def __init__(self, path, start, error):
        super().__init__(path)
        self.start, self.error = start, error

    def readinto(self, buffer):
        if self.tell() + len(buffer) > self.start:
            raise self.error
        return super().readinto(buffer)


def failing(monkeypatch, share, error):
    """Have files fail from a share of their bytes on."""
    monkeypatch.setattr(
        "melpatch.audio.sound_file._raw",
        lambda path: Failing(path, share * os.path.getsize(path), error),  # noqa: PTH202
    )


def read(path):
    with open_sound(path) as sound:
        return sum(map(len, sound.blocks()))


def system_error(number):
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "error", "told"),
    [
        (errno.EIO, AudioError, r"a\.\w+: cannot be read \(Input/output error\); look at the disk"),
        (errno.ESTALE, UnreachableError, r"a\.\w+: cannot be read now \(Stale file handle\)"),
    ],
)
def test_a_disk_that_fails_in_the_middle_is_no_end_of_file(
    path, monkeypatch, capfd, number, error, told
):
    failing(monkeypatch, 0.6, system_error(number))
    with pytest.raises(error, match=told):
        read(path)
    assert capfd.readouterr().err == ""


def test_ctrl_c_is_raised_behind_the_decoder(path, monkeypatch, capfd):
    failing(monkeypatch, 0.6, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        read(path)
    assert capfd.readouterr().err == ""


def test_what_an_open_file_of_the_caller_raises_is_the_callers(path):
    content = path.read_bytes()

    class Own(io.BytesIO):
        def read(self, count=-1):
            if self.tell() + count > 0.6 * len(content):
                raise RuntimeError("of the caller's own")
            return super().read(count)

    with pytest.raises(RuntimeError, match="of the caller's own"):
        read(OpenFile(Own(content)))


def test_a_file_is_read_once_the_disk_is_back(path, monkeypatch):
    whole = read(path)
    with monkeypatch.context() as patch:
        failing(patch, 0.6, system_error(errno.EIO))
        with pytest.raises(AudioError):
            read(path)
    assert read(path) == whole
    assert probe(path).samples in (None, whole)
    assert decoders.Bytes(io.BytesIO(b"12345678")).take_failure() is None
