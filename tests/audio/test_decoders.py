"""libsndfile's many small reads are served from a buffer, not one by one from the file."""

import io

import numpy as np
import pytest
import soundfile

from melpatch.audio.decoders import Bytes, open_decoder


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("MP3", "MPEG_LAYER_III")])
def test_small_reads_are_served_from_a_buffer(container, subtype):
    noise = 0.1 * np.random.default_rng(0).standard_normal(480_000)
    content = io.BytesIO()
    soundfile.write(content, noise, 48_000, format=container, subtype=subtype)
    reads = []

    class Counted(io.BytesIO):
        def readinto(self, buffer):
            reads.append(len(buffer))
            return super().readinto(buffer)

    with Bytes(Counted(content.getvalue())) as file, open_decoder(file) as sound:
        assert len(sound.read(len(noise))) == pytest.approx(len(noise), abs=4_000)
    # The header is read anew after a seek to the end and back.
    assert len(reads) < len(content.getvalue()) / 2**16 + 12
