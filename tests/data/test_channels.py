"""Which channel is taken: of files, parts of files, arrays and shards."""

import numpy as np
import pytest
import soundfile

from melpatch.commands.pack import Config, run
from melpatch.data.manifest import load_corpus
from melpatch.data.sound import decode, decode_windows
from melpatch.inference.samples import mono

RATE = 16_000
LEFT = np.random.default_rng(0).uniform(-0.2, 0.2, 2 * RATE).astype(np.float32)
TAKEN = {
    "mean": np.zeros_like(LEFT),
    "left": LEFT,
    "right": -LEFT,
}


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data/a.wav", np.stack([LEFT, -LEFT], 1), RATE, subtype="FLOAT")
    return load_corpus([tmp_path / "data"])


@pytest.mark.parametrize("channel", TAKEN)
def test_a_channel_is_taken_of_files_windows_and_arrays(corpus, channel):
    (clip,) = corpus.on_channel(channel).clips
    np.testing.assert_array_equal(decode(clip, RATE), TAKEN[channel])
    windows = [wave for _, wave in decode_windows(clip, 0.5, 0.5, RATE)]
    np.testing.assert_array_equal(np.concatenate(windows), TAKEN[channel])
    np.testing.assert_array_equal(mono(np.stack([LEFT, -LEFT]), channel), TAKEN[channel])
    np.testing.assert_array_equal(mono(np.stack([LEFT, -LEFT], 1), channel), TAKEN[channel])


def test_the_loudest_channel_is_that_of_the_whole_file(tmp_path):
    quiet_at_first = np.where(np.arange(len(LEFT)) < RATE, 0, 3 * LEFT).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([LEFT, quiet_at_first], 1), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", LEFT, RATE, subtype="FLOAT")
    stereo, single = load_corpus([tmp_path]).on_channel("loudest").clips
    np.testing.assert_array_equal(decode(stereo, RATE), quiet_at_first)
    np.testing.assert_array_equal(decode(single, RATE), LEFT)


def test_another_channel_is_other_audio(corpus):
    states = {corpus.on_channel(channel).clips[0].state for channel in TAKEN}
    assert len(states) == 3


def test_shards_hold_the_channel(tmp_path, corpus):
    out = tmp_path / "shards"
    run(Config(sources=(str(tmp_path / "data"),), out=out, channel="right", workers=0, codec="pcm"))
    (clip,) = load_corpus([out]).clips
    np.testing.assert_allclose(decode(clip, RATE), -LEFT, atol=1e-4)
