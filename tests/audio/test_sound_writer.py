"""16-bit sound files: 16-bit samples survive exactly, and clipping is counted."""

import errno
import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from melpatch.audio import sound_writer

CODECS = pytest.mark.parametrize("codec", ["flac", "pcm"])


def encode(wave, rate, codec):
    """The bytes of a wave, and which share of it was beyond full scale."""
    file = io.BytesIO()
    coded = sound_writer.write_sound([wave], rate, codec, file)
    assert coded.samples == len(wave)
    assert coded.peak == np.abs(wave).max()
    return file.getvalue(), coded.clipped / coded.samples


def decoded(content):
    return soundfile.read(io.BytesIO(content), dtype="float32")


@CODECS
@given(samples=st.integers(1, 5000), rate=st.sampled_from([1000, 8000, 16_000, 44_100, 655_350]))
def test_16_bit_samples_survive_exactly(codec, samples, rate):
    wave = (np.random.default_rng(samples).integers(-(1 << 15), 1 << 15, samples) / 2**15).astype(
        np.float32
    )
    content, beyond = encode(wave, rate, codec)
    samples_read, rate_read = decoded(content)
    assert np.array_equal(samples_read, wave)
    assert (rate_read, beyond) == (rate, 0.0)


@CODECS
def test_other_values_are_rounded_to_the_nearest_step(codec):
    wave = np.linspace(-1, 0.9999, 999, dtype=np.float32)
    content, beyond = encode(wave, 8000, codec)
    assert np.abs(decoded(content)[0] - wave).max() <= 0.5 / 2**15
    assert beyond == 0


@CODECS
def test_samples_beyond_full_scale_are_clipped_and_counted(codec):
    wave = np.array([0.5, 1.0, 1.01, -1.0, -1.01, 3e4, -3e4, 0.0], np.float32)
    content, beyond = encode(wave, 8000, codec)
    top = 1 - 1 / 2**15
    assert decoded(content)[0].tolist() == [0.5, top, top, -1, -1, top, -1, 0]
    assert beyond == 4 / 8  # 1.0 and -1.0 are full scale itself


def test_flac_is_smaller_than_pcm():
    wave = 0.1 * np.sin(np.arange(16_000, dtype=np.float32) / 20)
    assert len(encode(wave, 16_000, "flac")[0]) < 0.6 * len(encode(wave, 16_000, "pcm")[0])


@CODECS
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=4).filter(any))
def test_the_bytes_do_not_depend_on_the_pieces(codec, lengths):
    wave = np.random.default_rng(0).normal(0, 0.3, sum(lengths)).astype(np.float32)
    file = io.BytesIO()
    coded = sound_writer.write_sound(np.split(wave, np.cumsum(lengths)[:-1]), 8000, codec, file)
    whole, beyond = encode(wave, 8000, codec)
    assert file.getvalue() == whole
    assert coded == (len(wave), round(beyond * len(wave)), np.abs(wave).max())


class Full(io.BytesIO):
    """A file of which one call fails, and only that one."""

    def __init__(self, which):
        super().__init__()
        self.which, self.calls = which, 0

    def _count(self):
        self.calls += 1
        if self.calls == self.which:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, data):
        self._count()
        return super().write(data)

    def seek(self, *where):
        self._count()
        return super().seek(*where)


@CODECS
def test_a_full_disk_is_reported_whenever_it_happens(codec):
    wave = np.random.default_rng(0).normal(0, 0.3, 30_000).astype(np.float32)
    whole = Full(None)
    sound_writer.write_sound([wave], 8000, codec, whole)
    assert whole.calls > 3
    for which in range(1, whole.calls + 1):
        with pytest.raises(OSError, match="No space left"):
            sound_writer.write_sound([wave], 8000, codec, Full(which))
